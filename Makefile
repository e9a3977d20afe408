# Everything here works from a fresh clone: the first target that needs it makes .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find converter frontends backends -name '*.py' 2>/dev/null)
# The strict editable install links file by file: a new or deleted file needs a new install.
FILE_LIST := $(shell printf '%s\n' $(SOURCES) | sort | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(FILE_LIST)

.PHONY: help install test test-slow test-all check lint types contracts wheel demo bench accuracy clean

help: ## say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## set up .venv with everything for development

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(STAMP): $(VENV)/bin/python pyproject.toml
	@rm -rf build $(VENV)/.installed-*
	$(BIN)/python -m pip install --quiet --group dev -e '.[ncnn]'
	@touch $@

test: install ## run the fast tests on every core
	$(BIN)/python -m pytest -q -n auto -m 'not slow'

test-slow: install ## run the slow tests only
	$(BIN)/python -m pytest -q -n auto -m slow

test-all: install ## run every test
	$(BIN)/python -m pytest -q -n auto

lint: install ## ruff: format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install ## mypy, strict, on sources and tests
	$(BIN)/mypy

contracts: install ## the layers import downward only
	$(BIN)/lint-imports --no-cache

wheel: install ## build sdist and wheel and look inside the wheel
	rm -rf dist
	$(BIN)/python -m build --quiet --outdir dist .
	$(BIN)/check-wheel-contents dist/*.whl

demo: install ## convert, quantize and verify the sample, then compare top-1
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh samples/digits/run.sh

bench: install ## measure time and memory beside other tools
	@for script in bench/read_*.py bench/calibration.py; do \
		echo "== $$script"; $(BIN)/python $$script || exit 1; done

accuracy: install ## fill docs/accuracy.md: hours, can be interrupted and run again
	$(BIN)/python bench/accuracy.py

check: lint types contracts test ## all that must be clean before a commit

clean: ## remove what was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
