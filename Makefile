# Needs Go, CPython 3.10 to 3.13, gcc and make; everything else is installed into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# What an installed agflow is made of.
SOURCES := pyproject.toml go.mod go.sum README.md python/build_native.py python/compat.h python/pkg-config \
           $(shell find core bridge cli -name '*.go' -o -name '*.s' -o -name '*.py') $(shell find python/agflow -type f ! -name '*.pyc' ! -name '*.so' ! -path '*/_bin/*')
# go-python3 is compiled for the Python of .venv.
GO_PYTHON = eval "$$($(BIN)/python python/build_native.py environment)" && AGFLOW_TEST_PYTHON=$(abspath $(BIN)/python) go

.DEFAULT_GOAL := help
.PHONY: help run test test-go test-python native python-matrix clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-14s %s\n", $$1, $$2 }'

run: $(VENV)/installed ## Set up, then the whole road on the shipped example: agflow run
	$(BIN)/agflow run

test: test-go test-python ## Set up, then all tests of Go and Python

test-go: $(VENV)/installed-test ## Go: vet, core without cgo and without assembly, bridge under the race detector, Python hosting and the command
	go vet ./...
	$(GO_PYTHON) vet -tags python ./...
	CGO_ENABLED=0 GOARCH=arm64 go vet ./core/...
	CGO_ENABLED=0 go test ./core/... ./cli
	CGO_ENABLED=0 go test -tags purego ./core/internal/kernel ./core/statistics ./core/planning
	go test -race ./bridge/...
	$(GO_PYTHON) test -tags python ./bridge/pyhost ./cli

test-python: $(VENV)/installed-test ## Python: pytest against the installed package
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest python/tests

native: $(BIN)/python ## Install in place (pip install -e), for work on the sources; again after each change in Go
	$(BIN)/pip install --quiet --editable '.[test]'
	@rm -f $(VENV)/installed $(VENV)/installed-test

python-matrix: ## Build and try the wheel, without torch, on every CPython 3.10 to 3.13 of this machine
	$(PYTHON) python/matrix.py

clean: ## Remove everything that was built or installed here
	rm -rf $(VENV) _build dist python/agflow/_bin python/agflow/_core/*.so

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info < (3, 14) else "agflow needs CPython 3.10 to 3.13, %s is %s: name another one with make PYTHON=..." % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check .
	@touch $@

$(VENV)/installed-test: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check '.[test]'
	@touch $@ $(VENV)/installed
