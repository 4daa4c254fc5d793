# Two commands: `make search` shows what this does, `make test` shows that it works.
# Both set up everything they need in .venv; nothing outside the checkout is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: search test setup format check benchmarks clean

search: $(READY)
	$(BIN)/python launchers/search.py --space digits.yaml

test: check
	$(BIN)/python -m pytest -m "not slow and not cluster" --numprocesses 2
	$(BIN)/python -m pytest -m "cluster and not slow"  # by itself: two Ray clusters at once starve each other

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
