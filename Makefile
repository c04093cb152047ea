# `make check` is the README's test command without its installation
PYTHON ?= python
.PHONY: check format test lint bench

check: lint test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

test:
	$(PYTHON) -m pytest

bench:
	$(PYTHON) bench/quality.py --data $(DATA)
