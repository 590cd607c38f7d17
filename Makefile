# Every target sets up what it needs; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEER := .venv-peer
PEER_READY := $(PEER)/.ready

.PHONY: help setup demo test check slow drill models bench-throughput clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# constraints.txt pins torch, so that no newer release with its CUDA packages is taken by accident. Where your
# package index serves CUDA builds under that version too, or to get one on a machine with a GPU, name the index:
#   make setup TORCH="torch --index-url <PyTorch's CPU or CUDA index>"
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(READY)

TORCH ?= torch

setup: $(READY) ## make .venv with everything in it

demo: $(READY) ## train CoLLM-CC on a small writing task, about three minutes on two cores
	$(BIN)/collm train --preset builtin-writing

test: $(READY) ## all tests that CI runs
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow and not drill and not gpu and not alone"
	$(BIN)/python -m pytest -m "alone and not slow"

check: $(READY) ## lint, format, types, spelling, quick unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell collm_envs collm_agents docs examples README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/python -m pytest -q --durations=0 --durations-min=5 -n 2 tests/envs tests/agents tests/style -m "not learning and not system and not slow"

slow: $(READY) ## tests longer than CI allows
	$(BIN)/python -m pytest -m slow

drill: $(READY) ## hostile input by the million
	$(BIN)/python -m pytest -m drill

models: $(READY) ## rebuild the built-in model from its seeded script
	$(BIN)/python -m collm_agents.models.warmstart

# The paper's released library, in an environment of its own: only the comparison of costs runs it.
$(PEER_READY): constraints.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -m pip install --quiet --upgrade pip
	$(PEER)/bin/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(PEER)/bin/python -m pip install --quiet -c constraints.txt comlrl==1.4.3 transformers datasets
	touch $(PEER_READY)

bench-throughput: $(READY) $(PEER_READY) ## our learners beside comlrl's, and beside the machine's peaks; hours on a CPU
	$(BIN)/python -m benchmarks.throughput $(BENCH)

clean: ## remove the environments and caches, not the runs
	rm -rf $(VENV) $(PEER) .pytest_cache .mypy_cache .ruff_cache .hypothesis
