"""What is done to one candidate. Only modules in here import torch, transformers, peft or onnxruntime.

`jobs` describes the stages (light); each other module does one of them, in a worker process.
"""
