"""Run exported models on ONNX Runtime or TensorRT, with an engine for this machine, and measure parity."""
