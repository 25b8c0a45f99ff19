# make demo   the main job, live, on a real model (FAST=1: the smaller one)
# make model  a built-in model, made ready where there is no hub (MODEL=NAME)
# make test   every test that a bare machine can run
# make test-fast  those that take little time: under a minute on two cores
# make test-servers  budgets against real servers (see tests/real_servers.py for how they are found)
# make check  lint, types, docs, the documents as a site
# make docs-site  the documents as a site: build/site/index.html
# make dist   wheel and source archive, checked: dist/
# Each makes its own virtual environment and needs nothing but Python 3.11+ and a package index.

PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check --quiet --quiet install --constraint constraints.txt
MODEL = $(if $(filter 1,$(FAST)),qwen2.5-coder-0.5b,qwen2.5-coder-1.5b)

.PHONY: help demo model test test-fast test-servers check docs docs-site dist clean

help:
	@sed -n '1,9s/^# //p' Makefile

model: $(VENV)/.demo
	$(VENV)/bin/python demo/fetch_model.py $(MODEL)

demo: model
	$(VENV)/bin/forethought demo $(MODEL) $(DEMO)

# The tests start hundreds of processes: without files of bytecode each compiles the package again. A worker keeps to
# neighbouring tests, which share what is costly to make, and takes over half of what another has left.
RUN_TESTS = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist worksteal

test: $(VENV)/.dev
	$(RUN_TESTS) $(PYTEST)

test-fast: $(VENV)/.dev
	$(RUN_TESTS) -m "not slow and not server" $(PYTEST)

test-servers: $(VENV)/.dev
	$(VENV)/bin/python -m pytest tests/test_servers*.py -m server -rs --timeout 3600 $(PYTEST)

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python tools/docs.py --check
	$(VENV)/bin/python tools/docs_site.py build/site

docs: $(VENV)/.dev
	$(VENV)/bin/python tools/docs.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tools/tutorial.py docs/nightly.md docs/levels.md docs/votes.md

docs-site: $(VENV)/.dev
	$(VENV)/bin/python tools/docs_site.py build/site

dist: $(VENV)/bin/python
	rm -rf dist
	$(PIP) build twine
	$(VENV)/bin/python -m build
	$(VENV)/bin/python -m twine check --strict dist/*

clean:
	rm -rf .venv build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing forethought with transformers and matplotlib into $(VENV)"
	$(PIP) --editable '.[transformers,plots]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing forethought with everything the tests use into $(VENV)"
	$(PIP) --editable '.[transformers,lora,openai,gateway,tracing,ray,plots,math,inspect,docs,dev]'
	@touch $@
