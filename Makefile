# The two main commands are `make demo` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IN_TWO := --numprocesses 2 --no-loadscope-reorder
# Two processes of two threads each contend for two cores, which takes four times as long.
ONE_THREAD := OMP_NUM_THREADS=1
READY := $(VENV)/.ready

.PHONY: demo test test-all check static unit clean

demo: $(READY)
	$(BIN)/maag demo

test: static
	$(ONE_THREAD) $(BIN)/python -m pytest $(IN_TWO) -m "not long"

test-all: static
	$(ONE_THREAD) $(BIN)/python -m pytest $(IN_TWO)

check: static unit

static: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest tests/unit -m "not slow" $(IN_TWO)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
