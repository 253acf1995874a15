"""Exported models, run: on ONNX Runtime or TensorRT, with an engine that fits the machine, and in agreement."""
