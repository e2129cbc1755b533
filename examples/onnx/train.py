"""Trains a small neural network on the digits that scikit-learn ships and exports it to model.onnx.

Needs more than serving does: `pip install scikit-learn skl2onnx`, then `python train.py`.
"""

import json
from pathlib import Path

from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

here = Path(__file__).parent
digits = load_digits()
train_x, test_x, train_y, test_y = train_test_split(digits.data, digits.target, random_state=0)
model = make_pipeline(MinMaxScaler(), MLPClassifier((32,), max_iter=500, random_state=0)).fit(train_x, train_y)
print(f"accuracy on digits not seen: {model.score(test_x, test_y):.3f}")
graph = to_onnx(
    model,
    initial_types=[("pixels", FloatTensorType([None, 64]))],
    options={"zipmap": False},
    final_types=None,
    target_opset=17,
)
(here / "model.onnx").write_bytes(graph.SerializeToString())
(here / "request.json").write_text(json.dumps({"pixels": [int(pixel) for pixel in test_x[0]]}) + "\n")
