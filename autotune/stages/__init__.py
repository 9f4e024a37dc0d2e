"""The stages of a candidate. Only modules in here import torch, transformers, peft or onnxruntime.

`jobs` describes the stages and imports little; each other module does one of them, in a worker process."""
