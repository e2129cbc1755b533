"""Reads a handwritten digit, with an ONNX model: the same file serves from any framework that exports ONNX."""

import os

import numpy as np
import onnxruntime


class Deployment:
    def __init__(self, base_directory, context):
        path = os.path.join(base_directory, "model.onnx")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def request(self, data):
        # 8 x 8 pixels, row by row, from 0 (white) to 16 (black).
        pixels = np.array(data["pixels"], dtype=np.float32).reshape(1, 64)
        label, probabilities = self.session.run(["label", "probabilities"], {"pixels": pixels})
        return {"digit": int(label[0]), "probabilities": probabilities[0].round(4)}
