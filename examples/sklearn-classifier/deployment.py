"""Tells the species of an iris from four lengths of its flower."""

import os

import joblib


class Deployment:
    def __init__(self, base_directory, context):
        """Runs once, when an instance starts: load what every request needs."""
        self.model = joblib.load(os.path.join(base_directory, "model.joblib"))

    def request(self, data):
        """Runs for each request: `data` has the input fields, the result has the output fields."""
        row = [data[name] for name in ("sepal_length", "sepal_width", "petal_length", "petal_width")]
        species = self.model.predict([row])[0]
        chances = dict(zip(self.model.classes_, self.model.predict_proba([row])[0].round(4)))
        return {"species": species, "probability": chances[species], "probabilities": chances}
