# Predicts a car's miles per gallon from its weight and power, with a linear model.

# Runs once, when an instance starts.
init <- function(base_directory, context) {
  model <<- readRDS(file.path(base_directory, "model.rds"))
}

# Runs for each request: `input_data` has the input fields, the result has the output fields.
request <- function(input_data, base_directory, context) {
  car <- data.frame(wt = input_data[["weight"]], hp = input_data[["horsepower"]])
  answer <- predict(model, car, interval = "prediction")
  list(mpg = round(answer[1, "fit"], 2), low = round(answer[1, "lwr"], 2), high = round(answer[1, "upr"], 2))
}
