PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt

.NOTPARALLEL:
.PHONY: demo test test-portable check bench docs clean

demo: .venv/ready-to-use
	$(BIN)/mixtura run digits --fresh
	$(BIN)/mixtura report runs/digits

# two files at a time: one process of torch uses a core well, and hardly a second
test: .venv/ready-to-test
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

# the tests once more for each kind of processor that this one can pass for
test-portable: .venv/ready-to-test
	$(BIN)/python tests/portable.py

check: .venv/ready-to-check
	$(BIN)/ruff check
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: .venv/ready-to-test
	@for script in $(sort $(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# the site, to be opened from the disk: site/index.html; any warning is an error
docs: .venv/ready-for-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the site is in site/index.html"

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist site
	find . -name __pycache__ -prune -exec rm -rf {} +

# Each stamp says what is installed; it is older than what decides it when that changes.

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit("mixtura needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@touch $@

# torch goes first, alone: it is the large download, and no other package's range then chooses its build
.venv/torch: .venv/made constraints.txt
	$(INSTALL) torch
	@touch $@

.venv/ready-to-use: .venv/torch pyproject.toml
	$(INSTALL) --editable '.[parquet]'
	@touch $@

.venv/ready-to-test: .venv/ready-to-use
	$(INSTALL) --editable '.[test]'
	@touch $@

.venv/ready-to-check: .venv/ready-to-use
	$(INSTALL) --editable '.[dev]'
	@touch $@

.venv/ready-for-docs: .venv/ready-to-use
	$(INSTALL) --editable '.[docs]'
	@touch $@
