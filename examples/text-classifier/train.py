"""Trains on the descriptions of the data sets that scikit-learn ships: `python train.py` writes model.joblib."""

import re
from pathlib import Path

import joblib
from sklearn import datasets
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline

WORDS = 12
passages, topics = [], []
for topic in ("iris", "wine", "breast_cancer", "diabetes", "digits"):
    words = re.findall(r"[a-zA-Z]{3,}", getattr(datasets, f"load_{topic}")().DESCR)
    for start in range(0, len(words), WORDS):
        passages.append(" ".join(words[start : start + WORDS]))
        topics.append(topic)

model = make_pipeline(TfidfVectorizer(stop_words="english", sublinear_tf=True), ComplementNB())
folds = StratifiedKFold(5, shuffle=True, random_state=0)
accuracy = cross_val_score(model, passages, topics, cv=folds).mean()
print(f"{len(passages)} passages of {WORDS} words; accuracy in 5-fold cross-validation: {accuracy:.3f}")
joblib.dump(model.fit(passages, topics), Path(__file__).with_name("model.joblib"), compress=9)
