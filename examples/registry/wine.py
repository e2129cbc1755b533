"""Trains a classifier on the wine data that scikit-learn ships, for the model registry.

`python wine.py [FOLDER]` writes model.joblib. Upload it as a model (framework sklearn-joblib) and deploy it
without writing any code. Needs scikit-learn and pandas; serving needs scikit-learn alone.
"""

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

wine = load_wine(as_frame=True)
# A data frame gives the model the names of its features, and so the endpoint the names of its fields.
features = wine.data[["alcohol", "malic_acid", "flavanoids", "color_intensity", "proline"]]
cultivar = wine.target.map({0: "Barolo", 1: "Grignolino", 2: "Barbera"})
model = make_pipeline(StandardScaler(), LogisticRegression())
print(f"accuracy in 5-fold cross-validation: {cross_val_score(model, features, cultivar).mean():.3f}")
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
joblib.dump(model.fit(features, cultivar), folder / "model.joblib")
