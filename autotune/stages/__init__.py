"""The stages of a candidate. Only modules in here import torch, transformers, peft or onnxruntime.

`protocol`, `jobs`, `preparation_jobs`, `delivery_jobs` and `inspection_findings` describe the stages and import little; each
other module does one of them, or helps with it, in a worker process."""
