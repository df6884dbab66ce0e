# `make demo` and `make test` each take a fresh clone to the end with only Python and a C++ compiler there.
# Both work in .venv; stamp files in it remember what is installed, so that a second run starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Every pip below keeps to these versions, also where it resolves dependencies of dependencies.
export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PACKAGING := pyproject.toml setup.py $(wildcard build_backend/*.py)
CSRC := $(wildcard csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h csrc/*/*/*.h csrc/cuda/*.cu csrc/cuda/*.cuh tests/*/*.cpp)

.PHONY: demo check test lint bench docs hub clean

# Processes that share the tests. Each test has one thread, folders of its own and no fixed port.
WORKERS ?= 2
SHARED := -n $(WORKERS) --dist worksteal

demo: $(VENV)/.stamp-train
	$(BIN)/mvae-fast train --out runs/demo --overwrite
	@echo "Results: runs/demo (samples.png, the table); curves: $(BIN)/tensorboard --logdir runs"

# Under a minute on two cores; `make test` is everything.
check: lint
	$(BIN)/python -m pytest -q $(SHARED) -m "not slow"

test: lint
	$(BIN)/python -m pytest $(SHARED)
	$(BIN)/python -m pytest --doctest-modules mvae_fast

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(if $(CSRC),$(BIN)/clang-format --dry-run -Werror $(CSRC))

# The Triton engine as a kernel of the Hugging Face Hub.
hub:
	rm -rf build/hub
	$(PYTHON) hub/write.py build/hub

bench: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest benchmarks

# Into build/site; a warning is an error.
docs: $(VENV)/.stamp-dev
	$(BIN)/mkdocs build --strict

# Everything that make wrote, .venv apart: delete that by hand to start from nothing.
clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .benchmarks .hypothesis
	rm -f mvae_fast/_C*.abi3.so mvae_fast/_*build_error.txt $(VENV)/.stamp-*

$(VENV)/.stamp-torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q torch
	@touch $@

$(VENV)/.stamp-train: $(VENV)/.stamp-torch $(PACKAGING) $(CSRC)
	$(BIN)/python -m pip install -q -e ".[train]"
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-torch $(PACKAGING) $(CSRC)
	$(BIN)/python -m pip install -q -e ".[train,images,test,bench,peers,docs,dev]"
	@touch $@ $(VENV)/.stamp-train
