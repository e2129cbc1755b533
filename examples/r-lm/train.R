# Fits the model on R's own mtcars data: `Rscript train.R` writes model.rds.
model <- lm(mpg ~ wt + hp, data = mtcars)
cat("adjusted R2:", round(summary(model)$adj.r.squared, 3), "\n")
saveRDS(model, "model.rds")
