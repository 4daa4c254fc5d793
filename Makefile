# Two commands: `make search` shows what this does, `make test` shows that it works.
# Both set up everything they need in .venv; nothing outside the checkout is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest

# Empty: compiled modules are kept, else each of the processes that tests start compiles all of this project again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: search test test-cluster test-1 test-2 test-3 test-others setup format check clean

search: $(READY)
	$(BIN)/python launchers/search.py --space digits.yaml

# Beside each other, on two cores, the longest first; but never two Ray clusters at once: they starve each other.
test: $(READY)
	$(MAKE) --jobs 2 --output-sync --keep-going test-cluster test-1 test-2 test-3 test-others check

test-cluster: $(READY)
	$(PYTEST) -m "not slow and cluster"

# Parts of about the same length; `test-others` has all that no other part names.
PART_1 := tests/analysis tests/commands tests/export
PART_2 := tests/data tests/methods tests/models
PART_3 := tests/results tests/search tests/sweep

test-1 test-2 test-3: test-%: $(READY)
	$(PYTEST) -m "not slow and not cluster" $(PART_$*)

test-others: $(READY)
	$(PYTEST) -m "not slow and not cluster" $(addprefix --ignore=,$(PART_1) $(PART_2) $(PART_3))

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV)
