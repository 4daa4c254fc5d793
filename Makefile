# Two commands: `make search` shows what this does, `make test` shows that it works.
# Both set up everything they need in .venv; nothing outside the checkout is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: search test test-alone test-cluster setup format check clean

search: $(READY)
	$(BIN)/python launchers/search.py --space digits.yaml

# Beside each other, on two cores, in this order; but never two Ray clusters at once: they starve each other.
test: $(READY)
	$(MAKE) --jobs 2 --output-sync check test-cluster test-alone

test-alone: $(READY)
	$(BIN)/python -m pytest -m "not slow and not cluster"

test-cluster: $(READY)
	$(BIN)/python -m pytest -m "not slow and cluster"

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
