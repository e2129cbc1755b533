"""Run in an environment with scikit-learn: trains the models that tests serve, each in a folder of its own."""

import sys
from pathlib import Path

import joblib
import numpy
import skops.io
from sklearn.datasets import load_diabetes, load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

target = Path(sys.argv[1])


def folder(name: str) -> Path:
    (target / name).mkdir()
    return target / name


iris = load_iris()
classifier = LogisticRegression(max_iter=500).fit(iris.data, iris.target_names[iris.target])
joblib.dump(classifier, folder("iris") / "model.joblib")
for compression in ("zlib", "gzip", "bz2", "xz", "lzma"):
    joblib.dump(classifier, folder(f"iris-{compression}") / "model.joblib", compress=(compression, 3))
skops.io.dump(classifier, folder("iris-skops") / "model.skops")

regression = Ridge().fit(*load_diabetes(return_X_y=True))
joblib.dump(regression, folder("diabetes") / "model.pkl")

texts, moods = ["good", "bad", "very good", "very bad"], ["glad", "sad", "glad", "sad"]
joblib.dump(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, moods), folder("mood") / "m.joblib")

named = Ridge().fit([[1, 2], [2, 4], [3, 7]], [1, 2, 3])
named.feature_names_in_ = numpy.array(["width", "height"], dtype=object)
joblib.dump(named, folder("named") / "m.joblib")

# A type that skops does not trust by itself: any function could be meant.
suspicious = make_pipeline(FunctionTransformer(numpy.nan_to_num), Ridge()).fit([[1.0], [2.0]], [1, 2])
skops.io.dump(suspicious, folder("suspicious") / "m.skops")
joblib.dump({"not": "a model"}, folder("dict") / "m.joblib")
