# make check is what .ci/run and a commit hook call
PYTHON ?= python
.PHONY: check format test lint bench

check: lint test

lint:
	$(PYTHON) -m ruff check src tests bench
	$(PYTHON) -m ruff format --check src tests bench
	$(PYTHON) -m mypy

format:
	$(PYTHON) -m ruff check --fix src tests bench
	$(PYTHON) -m ruff format src tests bench

test:
	$(PYTHON) -m pytest

bench:
	$(PYTHON) bench/quality.py --data $(DATA)
