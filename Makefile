# `make check` is the README's test command without its installation
PYTHON ?= python
.PHONY: check format test quick lint bench docs

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

quick:
	$(PYTHON) -m pytest -m "not slow"

# the documentation as a site in build/site: pip install '.[docs]'
docs:
	$(PYTHON) -m mkdocs build

# the figures of a folder of speech, as a page and as dated rows of bench/history.csv: make bench DATA=FOLDER
bench:
	mkdir -p build && rm -f build/bench.json
	-$(PYTHON) -m nacre evaluate $(DATA) --report build/bench.html --json build/bench.json --force
	$(PYTHON) bench/history.py build/bench.json
