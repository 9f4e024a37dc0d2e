# autotune in a container, for the CPU or for an NVIDIA GPU (CUDA 13: the host needs its driver and the NVIDIA Container Toolkit).
#
#   docker build -t autotune .
#   docker build -t autotune:cuda --build-arg TARGET=cuda .
#
# Sweep files, data, results and the cache are in the folder that is mounted at /sweeps:
#
#   docker run --rm -it --user "$(id -u):$(id -g)" -v "$PWD:/sweeps" autotune init --example phrase-tone-cpu
#   docker run --rm -it --user "$(id -u):$(id -g)" -v "$PWD:/sweeps" autotune run phrase-tone-cpu.yaml
#   docker run --rm -it --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/sweeps" autotune:cuda run qlora-cuda.yaml
ARG TARGET=cpu

FROM python:3.11-slim AS base-cpu
# PyTorch's own index has builds without CUDA, which are smaller by gigabytes.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 AS base-cuda
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*

FROM base-${TARGET}
ARG TARGET
COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY autotune /src/autotune
COPY search_spaces /src/search_spaces
COPY benchmarks/phrase_tone /src/benchmarks/phrase_tone
COPY benchmarks/orders /src/benchmarks/orders
RUN python3 -m venv /opt/autotune
RUN /opt/autotune/bin/pip install --no-cache-dir -c /src/constraints.txt "/src[${TARGET}]"
RUN mkdir -p /sweeps && chmod 1777 /sweeps && rm -rf /src
# A user of any number may run it: what looks for a home or a name finds one.
ENV PATH=/opt/autotune/bin:$PATH HOME=/sweeps USER=autotune AUTOTUNE_CACHE=/sweeps/.autotune-cache
WORKDIR /sweeps
ENTRYPOINT ["autotune"]
CMD ["--help"]
