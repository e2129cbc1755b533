"""Predicts how far diabetes progresses in a year, with a model of the year 2023 and the libraries of its time."""

import os

import joblib
import sklearn

FEATURES = ("age", "sex", "bmi", "blood_pressure", "log_triglycerides")


class Deployment:
    def __init__(self, base_directory, context):
        self.model = joblib.load(os.path.join(base_directory, "model.joblib"))

    def request(self, data):
        progression = self.model.predict([[data[name] for name in FEATURES]])[0]
        return {"progression": round(float(progression), 1), "scikit_learn": sklearn.__version__}
