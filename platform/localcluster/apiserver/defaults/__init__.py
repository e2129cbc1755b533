"""What the API server fills in on every write, so that equal intent compares equal."""
