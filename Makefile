# Everything a developer or a newcomer runs. `make help` lists it; each target sets up what it needs.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONSUMER := $(VENV)/consumer
DOCKERFILES := operator/Dockerfile trainer/Dockerfile tests/real/seaweed.Dockerfile
# Isolated builds read PIP_CONSTRAINT (older pip) or PIP_BUILD_CONSTRAINT (newer).
PIP := PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_BUILD_CONSTRAINT=$(CURDIR)/constraints.txt \
  PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip

.PHONY: help demo test check bench chaos test-real crds images clean setup

help: ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(READY) ## Make the environment (.venv) alone

$(READY): pyproject.toml constraints.txt trainer/upstream.txt
	@if [ -z "$(PYTHON)" ]; then \
	  echo "RecTrain needs Python 3.11 or newer with venv (Debian, Ubuntu: python3-venv): install it, or name one with make PYTHON=/path/to/python3." >&2; \
	  exit 69; fi
	@echo "==> Python environment in $(VENV) (about 2 minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --use-pep517 -e '.[dev]'
	@$(PIP) install --quiet --no-deps -r trainer/upstream.txt
	@touch $@

# A reader's environment of its own: PaddleOCR as its users install it, beside ours and not in it.
$(CONSUMER)/.ready: tests/e2e/consumer.txt | $(READY)
	@echo "==> PaddleOCR's own environment, to read our export (about 2 minutes the first time)"
	@$(PYTHON) -m venv $(CONSUMER)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(CONSUMER)/bin/python -m pip install --quiet -r tests/e2e/consumer.txt
	@touch $@

demo: $(READY) ## Start a cluster, train a digit reader on it, show the result (KEEP=1 leaves it running until Ctrl-C)
	@$(BIN)/rectrain-local prepare > /dev/null
	@$(BIN)/python examples/demo.py $(if $(KEEP),--keep)

test: $(READY) $(CONSUMER)/.ready ## Run every test
	@$(BIN)/rectrain-local prepare
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(READY) ## Lint (code, Dockerfiles, workflow), types, import contracts, generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint $(DOCKERFILES)
	@PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m rectrain_local.assets actionlint -pyflakes= .github/workflows/*.yaml
	@$(BIN)/python -m rectrain_api.crd --check
	@$(BIN)/python -m charts.generate --check
	@$(BIN)/python -m rectrain_trainer.preset_page --check
	@test ! -e operator/__init__.py || { \
	  echo "operator/__init__.py shadows the standard library's operator: remove it." >&2; exit 1; }

crds: $(READY) ## Write the CRD, the chart's generated files and the page of the presets from the models
	@$(BIN)/python -m rectrain_api.crd
	@$(BIN)/python -m charts.generate
	@$(BIN)/python -m rectrain_trainer.preset_page

images: ## Build the images rectrain-operator and rectrain-trainer with docker, podman or buildah
	@images/build

bench: $(READY) ## Measure: one JSON line a figure, with its baseline
	@$(BIN)/rectrain-local prepare >&2
	@for b in tests/benchmarks/[a-z]*.py; do $(BIN)/python $$b; done

test-real: $(READY) ## Run the tests that need kubelets, on a cluster of this machine (root) or a given one
	@tests/real/run

chaos: $(READY) ## Longer fault tests
	@$(BIN)/rectrain-local prepare
	@$(BIN)/python -m pytest -m chaos -o addopts=

clean: ## Remove the environment and caches of this checkout (not the shared cache of built binaries)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
