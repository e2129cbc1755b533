"""Trains the regression on the diabetes data that scikit-learn ships: `python train.py` writes model.joblib."""

from pathlib import Path

import joblib
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

data = load_diabetes(scaled=False)
columns = [data.feature_names.index(name) for name in ("age", "sex", "bmi", "bp", "s5")]
features = data.data[:, columns]
model = make_pipeline(StandardScaler(), Ridge())
print(f"R2 in 5-fold cross-validation: {cross_val_score(model, features, data.target).mean():.3f}")
joblib.dump(model.fit(features, data.target), Path(__file__).with_name("model.joblib"))
