# make demo    render music, train, evaluate, ask: ten minutes on two cores, install included
# make test    everything that proves it works: about twenty minutes
# make test-slow   longer proofs, some compiled for TPUs: twenty minutes
# make test-full   all proofs: hours
# make bench   measures: conversion of a 10 GB checkpoint beside cp; the data path and a train step beside the reference's;
#              what saving and restarting cost; answers with a song reused and without, and beside PyTorch; questions of
#              a benchmark asked together and without reuse
# make setup   the virtual environment in .venv; does nothing when nothing changed

PYTHON ?= python3
BIN := .venv/bin
# A file's tests share what they make, so a process takes whole files, in the order of tests/conftest.py.
IN_FILES := --dist loadfile --no-loadscope-reorder --durations 25
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: setup setup-test browser demo lint test test-slow test-full bench clean

setup: .venv/setup.stamp
setup-test: .venv/setup-test.stamp

.venv/setup.stamp: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing (a minute or two)"
	$(PIP) --no-deps tinysoundfont
	$(PIP) --editable '.[score,prepare,report,serve,evaluate]'
	@touch $@

# torch first and by itself: with it there, nothing else brings a larger build of it.
.venv/setup-test.stamp: .venv/setup.stamp
	$(PIP) torch
	$(PIP) --editable '.[score,prepare,report,serve,evaluate,hub,metrics,experiment,datasets,plan,notebooks,test]'
	@touch $@

demo: setup
	$(BIN)/mufun demo

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/shellcheck launch/*.sh .ci/run

# The page of `mufun report` is looked at in a real browser: any Chromium on the PATH, or Debian's, installed once.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		if command -v $$name >/dev/null; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium"; apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; \
	else \
		echo "make test needs a Chromium on the PATH (chromium, chromium-browser or google-chrome): install one" >&2; \
		exit 1; \
	fi

test: setup-test browser
	$(BIN)/pytest -m "not slow and not full" --numprocesses auto --maxprocesses 4 $(IN_FILES)

test-slow: setup-test
	$(BIN)/pytest -m slow --numprocesses auto --maxprocesses 4 $(IN_FILES)

test-full: setup-test
	$(BIN)/pytest -m "slow or full"

# Needs 35 GB of disk (in FOLDER, by default the system's for temporary files) and a quarter of an hour.
bench: setup-test
	$(BIN)/python -m tests.benchmarks.convert $(if $(FOLDER),--folder $(FOLDER))
	$(BIN)/python -m tests.benchmarks.data $(if $(FOLDER),--folder $(FOLDER))
	$(BIN)/python -m tests.benchmarks.train
	$(BIN)/python -m tests.benchmarks.survival
	$(BIN)/python -m tests.benchmarks.inference --models nano
	$(BIN)/python -m tests.benchmarks.benchmark_speed

clean:
	rm -rf .venv runs build *.egg-info
