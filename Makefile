# Every target sets up what it needs; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEER := .venv-peer
PEER_READY := $(PEER)/.ready

.PHONY: help setup demo test check docs slow drill lowest newest models bench-throughput clean \
	gpu gpu-tests gpu-steps gpu-throughput gpu-sweep gpu-learn

help: ## list the targets
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

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

demo: $(READY) ## train CoLLM-CC on a small writing task, about a minute
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

docs: $(READY) ## the documentation as a site, in docs/_build/html
	$(BIN)/python -m sphinx -q -W --keep-going -n -b html -c docs -d docs/_build/trees . docs/_build/html
	@echo "docs/_build/html/index.html"

slow: $(READY) ## tests longer than CI allows
	$(BIN)/python -m pytest -m slow

drill: $(READY) ## hostile input by the million, runs killed at random moments
	$(BIN)/python -m pytest -m drill

# torch apart, which constraints.txt pins for its size.
.venv-lowest/.ready .venv-newest/.ready: .venv-%/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --upgrade pip uv
	.venv-$*/bin/python -m pip install --quiet -c constraints.txt $(TORCH)
	.venv-$*/bin/uv pip install --quiet --python .venv-$*/bin/python --resolution $(if $(filter lowest,$*),lowest-direct,highest) \
		-e '.[data,train,report,search]' 'pytest>=8.3' 'pytest-xdist>=3.6' 'hypothesis>=6.120'
	touch $@

lowest newest: %: .venv-%/.ready ## quick tests with the oldest (newest) releases that pyproject.toml allows
	.venv-$*/bin/python -m pytest -n 2 tests/envs tests/agents -m "not learning and not system and not slow and not drill and not gpu and not alone"

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

# On a machine with a GPU. Each part is made for less than ten minutes and can be run alone; others of its kind by the
# variables: make gpu-throughput GPU_WORKLOAD="coding, 64" GPU_ALGORITHMS=collm-cc. Without one: docs/gpu.md.
GPU_DEVICE ?= cuda
GPU_ARGS ?=
GPU_MODELS ?= qwen3-1.7b
GPU_ROWS ?= 4,16,64,256
GPU_WORKLOAD ?= writing, paper
GPU_ALGORITHMS ?= mc
GPU_LENGTHS ?= equal
GPU_REPEATS ?= 3
GPU_AXIS ?= samples
GPU_LEARN ?= medium
GPU_PROGRAMS ?= 0,0,0
RESULTS := benchmarks/results
SLUG = $(shell echo '$(1)' | tr -cs 'a-z0-9.\n' '-')

gpu: gpu-tests gpu-steps gpu-throughput gpu-sweep gpu-learn ## all that needs a GPU, about an hour

gpu-tests: $(READY) ## tests on CUDA
	COLLM_TEST_DEVICE=$(GPU_DEVICE) $(BIN)/python -m pytest -m gpu tests/gpu

gpu-steps: $(READY) ## a decode step with and without CUDA graphs, beside the bandwidth floor
	$(BIN)/python -m benchmarks.throughput.steps --device $(GPU_DEVICE) --models $(GPU_MODELS) --rows $(GPU_ROWS) \
		--out $(RESULTS)/gpu-steps-$(call SLUG,$(GPU_MODELS)).json $(GPU_ARGS)

gpu-throughput: $(READY) $(PEER_READY) ## learners beside comlrl's at one of the paper's shapes, bf16
	$(BIN)/python -m benchmarks.throughput --device $(GPU_DEVICE) --paper-shapes --only '$(GPU_WORKLOAD)' \
		--algorithms $(GPU_ALGORITHMS) --lengths $(GPU_LENGTHS) --repeats $(GPU_REPEATS) --go-on \
		--out '$(RESULTS)/gpu-throughput-$(call SLUG,$(GPU_WORKLOAD) $(GPU_ALGORITHMS) $(GPU_LENGTHS)).json' $(GPU_ARGS)

gpu-sweep: $(READY) ## our side alone along one axis: agents, prompt or samples
	$(BIN)/python -m benchmarks.throughput --device $(GPU_DEVICE) --sweep --axes $(GPU_AXIS) --repeats 1 \
		--out $(RESULTS)/gpu-sweep-$(GPU_AXIS).json $(GPU_ARGS)

gpu-learn: $(READY) ## the suite `medium`; called again it goes on
	$(BIN)/collm bench $(GPU_LEARN) $(if $(filter cuda,$(GPU_DEVICE)),--gpus $(GPU_PROGRAMS)) --out runs/gpu-learn
	mkdir -p $(RESULTS)
	cp runs/gpu-learn/results.json $(RESULTS)/gpu-learn.json
	cp runs/gpu-learn/results-about.json $(RESULTS)/gpu-learn-about.json

clean: ## remove the environments and caches, not the runs
	rm -rf $(VENV) $(PEER) .venv-lowest .venv-newest .pytest_cache .mypy_cache .ruff_cache .hypothesis
