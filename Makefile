PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast lint docs

demo: $(READY)
	$(BIN)/python experiments/demo/run_demo.py

# Two at once: one starts the commands and waits for them, while the other computes.
TESTS := $(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

test: $(READY)
	$(TESTS)

test-fast: $(READY)
	$(TESTS) -m "not process"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(DOCS)

# Both libraries would print a notice about the next major version of MkDocs.
DOCS := NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

docs: $(READY)
	$(DOCS)

# An earlier version was installed as espalier, which is another project on the package index.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip uninstall -qq --yes espalier
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
