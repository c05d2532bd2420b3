# Every target prepares what it needs. Only python3 (3.11 or newer) and make have to be there.
#
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu    the CPU build of torch, on Linux without a GPU
#   make test PYTHON=python3.13 ARGS="-k spline"                  another interpreter; more arguments for the command

PYTHON ?= python3
ARGS ?=
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PINS := constraints.txt
EXTRAS := test,docs,dev,bench,export,tensorboard,sim
WHEELS := --only-binary pythia8mc,fastjet,geant4-pybind
TORCH_ARGS := $(shell grep '^torch==' $(PINS)) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs bench acceptance wheel constraints clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.core ## a simulated cross-section measurement: check, density, p-values, report: writes demo-output/
	$(BIN)/pofx run cross-section --out demo-output --force $(ARGS)

test: $(VENV)/.dev ## the test suite, without the tests marked slow or gpu
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not slow and not gpu" $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy and the import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## let ruff format and repair
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/.dev ## the documentation with its examples executed: docs/_build/html
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -j $(JOBS) -b html docs docs/_build/html
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -q --doctest-modules src/pofx || [ $$? -eq 5 ]

bench: $(VENV)/.dev ## speed and memory beside other libraries
	$(BIN)/python benchmarks/flows.py $(ARGS)

acceptance: $(VENV)/.dev ## measure the bars of one issue: ISSUE=NN [BAR=name] [FORCE=1]; resumable
	@[ -n "$(ISSUE)" ] || { echo "usage: make acceptance ISSUE=NN [BAR=name] [FORCE=1]" >&2; exit 2; }
	$(BIN)/python benchmarks/acceptance/run.py --issue $(ISSUE) $(if $(BAR),--bar $(BAR)) $(if $(FORCE),--force)

wheel: $(VENV)/.dev ## build dist/*.whl, install it elsewhere and import it
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python .ci/check_wheel.py dist

constraints: ## resolve the newest versions (torch stays) and write constraints.txt
	$(PYTHON) .ci/pin.py

clean: ## remove what was built; .venv stays
	rm -rf build dist demo-output docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# One virtual environment in three layers: torch alone, what a user gets, what a developer needs.
$(VENV)/.torch: $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pofx needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "$(PYTHON) lacks the venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH_ARGS)
	@touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml $(PINS)
	$(PIP) install -c $(PINS) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) install -c $(PINS) $(WHEELS) -e ".[$(EXTRAS)]"
	@touch $@
