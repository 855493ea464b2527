# make help tells what there is. ARGS passes options on: make train ARGS="model=mlp normalization=none"
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python
INSTALLED = $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install train test lint tensorboard clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## make the virtual environment and install the project into it

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(INSTALLED)

train: $(INSTALLED)  ## train; ARGS="group=option key=value" are passed on
	$(RUN) -m bnlm.train $(ARGS)

test: $(INSTALLED)  ## run the tests, two at a time; ARGS are pytest's
	$(RUN) -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(INSTALLED)  ## check style (ruff) and types (mypy)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

tensorboard: $(INSTALLED)  ## show all runs of this folder
	$(VENV)/bin/tensorboard --logdir runs $(ARGS)

clean:  ## remove the virtual environment and caches, not the runs
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build dist
