# Keeps a deployment.R loaded and answers requests: one JSON line in, one or more JSON lines out.
#
# Started by r_code.py as: Rscript bridge.R HERE PACKAGE IN OUT, where IN and OUT are pipes of their own, so that
# whatever the package prints stays on standard output. Needs base R only.

arguments <- commandArgs(trailingOnly = TRUE)
source(file.path(arguments[[1]], "json.R"))
base_directory <- arguments[[2]]
input <- fifo(arguments[[3]], open = "r", blocking = TRUE)
output <- fifo(arguments[[4]], open = "w", blocking = TRUE)

say <- function(kind, value) {
  writeLines(paste0("{\"", kind, "\":", value, "}"), output, useBytes = TRUE)
  flush(output)
}

# Calls `task`; an R error becomes an error line with its message and the package's calls that led to it.
guarded <- function(task) {
  calls <- character()
  tryCatch(
    withCallingHandlers(task(), error = function(problem) {
      # The last two are this handler's own.
      stack <- utils::head(sys.calls(), -2)
      calls <<- vapply(stack, function(call) paste(deparse(call, nlines = 1L), collapse = ""), "")
    }),
    error = function(problem) {
      # What comes before the package's function is the bridge's.
      ours <- grep("^(do\\.call\\(fun|sys\\.source\\(|eval\\(exprs)", calls)
      if (length(ours)) calls <- utils::tail(calls, -max(ours))
      calls <- sub("^\\(function ?\\(.*$", "<function>", utils::tail(calls, 20))
      trace <- c(paste("Error:", conditionMessage(problem)), if (length(calls)) c("Calls:", paste0("  ", calls)))
      say("error", to_json(list(message = conditionMessage(problem), traceback = paste(trace, collapse = "\n"))))
      FALSE
    }
  )
}

# Calls a function of the package with those of the offered arguments that it takes.
call_with <- function(fun, offered, positional) {
  wanted <- names(formals(fun))
  if (is.primitive(fun)) {
    return(do.call(fun, unname(offered[1])))
  }
  if ("..." %in% wanted) {
    return(do.call(fun, offered))
  }
  if (length(wanted) == 0L) {
    return(fun())
  }
  named <- offered[intersect(names(offered), wanted)]
  # The data is the first argument, whatever the package calls it.
  if (positional && !(names(offered)[[1]] %in% wanted)) named <- c(unname(offered[1]), named)
  do.call(fun, named)
}

package <- new.env(parent = globalenv())
message <- from_json(readLines(input, n = 1L, encoding = "UTF-8"))
init_context <- message[["context"]]
setwd(base_directory)
loaded <- guarded(function() {
  sys.source(file.path(base_directory, "deployment.R"), envir = package)
  if (is.function(package[["init"]])) {
    call_with(package[["init"]], list(base_directory = base_directory, context = init_context), FALSE)
  }
  if (!is.function(package[["request"]]) && !is.function(package[["requests"]])) {
    stop("deployment.R has no function named 'request'.")
  }
  say("ready", to_json(list(
    request = is.function(package[["request"]]), requests = is.function(package[["requests"]]),
    version = as.character(getRversion())
  )))
  TRUE
})
if (!isTRUE(loaded)) quit(save = "no", status = 1)

repeat {
  line <- readLines(input, n = 1L, encoding = "UTF-8")
  if (length(line) == 0L) break
  guarded(function() {
    message <- from_json(line)
    context <- message[["context"]]
    context[["streaming_update"]] <- function(part) {
      if (isTRUE(message[["streaming"]])) say("part", to_json(part))
      invisible(NULL)
    }
    offered <- list(input_data = message[["data"]], base_directory = base_directory, context = context)
    say("result", to_json(call_with(package[[message[["call"]]]], offered, TRUE)))
  })
}
quit(save = "no")
