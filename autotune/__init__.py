"""Search-based auto-tuner: LoRA hyperparameters and precisions of small language models for ONNX Runtime."""

__version__ = "0.1.0"
