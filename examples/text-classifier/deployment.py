"""Tells which of scikit-learn's data sets a sentence is about."""

import os

import joblib


class Deployment:
    def __init__(self, base_directory, context):
        self.model = joblib.load(os.path.join(base_directory, "model.joblib"))

    def request(self, data):
        return self.requests([data])[0]

    def requests(self, data):
        """Runs for a list of requests at once: one pass through the model for all of them."""
        chances = self.model.predict_proba([item["text"] for item in data])
        best = chances.argmax(axis=1)
        return [
            {"topic": self.model.classes_[index], "probability": round(float(row[index]), 4)}
            for index, row in zip(best, chances)
        ]
