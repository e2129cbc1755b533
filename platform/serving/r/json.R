# JSON for base R: `from_json(text)` and `to_json(value)`.
#
# Arrays of one kind of scalar become vectors, others lists; objects become named lists. Data frames are written
# as a list of rows, vectors of length one as scalars (`I(x)` keeps them arrays), NA and infinities as null.

json_token <- paste0(
  "\"(?:[^\"\\\\]|\\\\.)*\"", "|-?[0-9]+(?:\\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", "|true|false|null|[][{}:,]"
)

from_json <- function(text) {
  tokens <- regmatches(text, gregexpr(json_token, text, perl = TRUE))[[1L]]
  # Whatever is no token is left over: only JSON ever reaches R's parser below.
  if (grepl("[^[:space:]]", gsub(json_token, "", text, perl = TRUE))) stop("The input is not JSON.")
  kinds <- substr(tokens, 1L, 1L)
  texts <- kinds == "\""
  tokens[texts] <- gsub("\\/", "/", tokens[texts], fixed = TRUE)
  Encoding(tokens) <- "UTF-8"
  whole <- grepl("^-?[0-9]+$", tokens)
  # Beyond R's integers numbers stay doubles; up to them too, as JSON has one kind of number.
  tokens[kinds == "{"] <- "list("
  tokens[kinds == "["] <- "json_array("
  tokens[kinds %in% c("}", "]")] <- ")"
  tokens[kinds == ":"] <- "="
  tokens[tokens == "true"] <- "TRUE"
  tokens[tokens == "false"] <- "FALSE"
  tokens[tokens == "null"] <- "NULL"
  eval(parse(text = paste(tokens, collapse = ""), keep.source = FALSE, encoding = "UTF-8"), json_scope)
}

json_array <- function(...) {
  items <- list(...)
  if (length(items) == 0L || !all(lengths(items) == 1L) || any(vapply(items, is.list, NA))) return(items)
  for (is_kind in list(is.numeric, is.character, is.logical)) {
    if (all(vapply(items, is_kind, NA))) return(unlist(items))
  }
  items
}

json_scope <- list2env(list(list = list, json_array = json_array), parent = baseenv())

to_json <- function(value) {
  if (is.null(value)) return("null")
  if (is.data.frame(value)) return(json_rows(value))
  if (inherits(value, c("Date", "POSIXt"))) {
    return(json_vector(json_text(format(value, if (inherits(value, "Date")) "%Y-%m-%d" else "%Y-%m-%dT%H:%M:%S%z")), value))
  }
  if (is.factor(value)) return(json_vector(json_text(as.character(value)), value))
  if (is.matrix(value) || is.array(value)) {
    if (length(dim(value)) == 1L) return(to_json(I(as.vector(value))))
    rows <- lapply(seq_len(nrow(value)), function(row) to_json(I(as.vector(value[row, ]))))
    return(paste0("[", paste(rows, collapse = ","), "]"))
  }
  if (is.list(value)) return(json_list(value))
  if (is.character(value)) return(json_vector(json_text(value), value))
  if (is.logical(value)) return(json_vector(ifelse(is.na(value), "null", ifelse(value, "true", "false")), value))
  if (is.numeric(value)) return(json_vector(json_number(value), value))
  if (is.environment(value)) return(to_json(as.list(value)))
  stop("A result of class '", class(value)[[1L]], "' cannot be written as JSON.")
}

json_vector <- function(parts, value) {
  if (length(parts) == 1L && !inherits(value, "AsIs")) return(parts)
  paste0("[", paste(parts, collapse = ","), "]")
}

json_list <- function(value) {
  parts <- vapply(value, to_json, "")
  if (is.null(names(value))) return(paste0("[", paste(parts, collapse = ","), "]"))
  paste0("{", paste(json_text(names(value)), parts, sep = ":", collapse = ","), "}")
}

json_rows <- function(table) {
  if (nrow(table) == 0L) return("[]")
  columns <- lapply(table, function(column) {
    if (is.list(column)) vapply(column, to_json, "") else vapply(seq_along(column), function(i) to_json(column[[i]]), "")
  })
  names <- json_text(names(table))
  rows <- do.call(paste, c(Map(function(name, column) paste0(name, ":", column), names, columns), sep = ","))
  paste0("[", paste0("{", rows, "}", collapse = ","), "]")
}

json_number <- function(value) {
  short <- formatC(value, digits = 15L, format = "g", width = 1L)
  exact <- is.finite(value) & suppressWarnings(as.numeric(short)) == value
  parts <- ifelse(exact, short, formatC(value, digits = 17L, format = "g", width = 1L))
  ifelse(is.finite(value), parts, "null")
}

json_text <- function(value) {
  text <- enc2utf8(value)
  text <- gsub("\\", "\\\\", text, fixed = TRUE)
  text <- gsub("\"", "\\\"", text, fixed = TRUE)
  if (any(grepl("[\001-\037]", text))) {
    for (code in 1:31) {
      text <- gsub(intToUtf8(code), sprintf("\\u%04x", code), text, fixed = TRUE)
    }
  }
  ifelse(is.na(value), "null", paste0("\"", text, "\""))
}
