# Rscript restore.R renv.lock: installs the packages that the file names, at their versions, into $R_LIBS.
#
# renv itself is not needed. Versions that are no longer current come from the repository's archive.

source(file.path(dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))), "json.R"))
lock <- from_json(paste(readLines(commandArgs(trailingOnly = TRUE)[[1]], encoding = "UTF-8"), collapse = " "))
library_dir <- Sys.getenv("R_LIBS")

repositories <- vapply(lock[["R"]][["Repositories"]], function(item) item[["URL"]], "")
if (length(repositories) == 0L) repositories <- "https://cloud.r-project.org"
packages <- lock[["Packages"]]
for (package in packages) {
  source_kind <- package[["Source"]]
  if (!is.null(source_kind) && !(source_kind %in% c("Repository", "CRAN", "Bioconductor"))) {
    stop("renv.lock: ", package[["Package"]], " comes from '", source_kind, "'; only repositories are supported.")
  }
}

wanted <- vapply(packages, function(item) item[["Version"]], "")
names(wanted) <- vapply(packages, function(item) item[["Package"]], "")
# R's own packages come with R.
wanted <- wanted[!(names(wanted) %in% rownames(installed.packages(priority = c("base"))))]
current <- available.packages(repos = repositories, type = "source", filters = list())

address_of <- function(name) {
  listed <- current[current[, "Package"] == name & current[, "Version"] == wanted[[name]], , drop = FALSE]
  file <- sprintf("%s_%s.tar.gz", name, wanted[[name]])
  if (nrow(listed)) {
    return(file.path(listed[1L, "Repository"], file))
  }
  file.path(contrib.url(repositories, "source"), "Archive", name, file)
}

fetch <- function(name, folder) {
  target <- file.path(folder, sprintf("%s_%s.tar.gz", name, wanted[[name]]))
  for (address in address_of(name)) {
    got <- suppressWarnings(try(download.file(address, target, quiet = TRUE, mode = "wb"), silent = TRUE))
    if (!inherits(got, "try-error") && got == 0L) {
      return(target)
    }
  }
  stop(sprintf("%s %s is in none of the repositories.", name, wanted[[name]]), call. = FALSE)
}

if (length(wanted)) {
  folder <- tempfile("packages")
  dir.create(folder)
  files <- vapply(names(wanted), fetch, "", folder = folder)
  # Each needs what it depends on to be there first: the files say what that is.
  needs <- lapply(files, function(file) {
    description <- tempfile()
    dir.create(description)
    untar(file, files = file.path(sub("_.*$", "", basename(file)), "DESCRIPTION"), exdir = description)
    fields <- read.dcf(list.files(description, "DESCRIPTION", recursive = TRUE, full.names = TRUE)[[1]])
    listed <- intersect(c("Depends", "Imports", "LinkingTo"), colnames(fields))
    gsub("[[:space:]]*(\\(.*)?$", "", trimws(unlist(strsplit(fields[1L, listed], ","))))
  })
  left <- names(wanted)
  while (length(left)) {
    free <- left[vapply(left, function(name) !any(needs[[name]] %in% setdiff(left, name)), NA)]
    if (length(free) == 0L) stop("renv.lock: ", paste(left, collapse = ", "), " depend on each other.", call. = FALSE)
    for (name in free) {
      cat("Installing", name, wanted[[name]], "\n")
      install.packages(files[[name]], lib = library_dir, repos = NULL, type = "source", quiet = TRUE)
      if (!(name %in% rownames(installed.packages(library_dir)))) {
        stop(sprintf("%s %s could not be installed.", name, wanted[[name]]), call. = FALSE)
      }
    }
    left <- setdiff(left, free)
  }
}
