# Needs Go, CPython 3.10 to 3.13, gcc and make; everything else is installed into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# What an installed agflow is made of.
SOURCES := pyproject.toml go.mod go.sum README.md python/build_native.py python/compat.h \
           python/pkg-config core/defaults/defaults.json \
           $(shell find core bridge cli -name '*.go' -o -name '*.s' -o -name '*.py' -o -name '*.html') \
           $(shell find python/agflow -type f ! -name '*.pyc' ! -name '*.so' ! -path '*/_bin/*' \
                   ! -name defaults.json)
# go-python3 is compiled for the Python of .venv.
GO_PYTHON = eval "$$($(BIN)/python python/build_native.py environment)" \
            && AGFLOW_TEST_PYTHON=$(abspath $(BIN)/python) go
# A worker a core, with one torch thread each: two thread pools would fight for the cores.
PYTEST = PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/pytest
JOBS  ?= $(shell nproc)
# Go leaves its slow tests to make test-all.
SHORT ?= -short

# What the address sanitizer runs over: all that reads foreign memory or files.
CHECKED := ./bridge/abi ./bridge/carrow ./bridge/ipcfile ./bridge/tables ./bridge/tensorfolder
FUZZTIME ?= 1m
FUZZED := bridge/ipcfile:FuzzParse bridge/ipcfile:FuzzRead bridge/tables:FuzzTables \
          bridge/carrow:FuzzStructs bridge/carrow:FuzzMatrix core/routing:FuzzParseRouter \
          core/strictjson:FuzzStrict core/planning:FuzzCosts cli/serving/web:FuzzInfer \
          cli/serving/web:FuzzNumbers cli/serving/web:FuzzForm cli/serving/web:FuzzLabels \
          core/routing/monitor:FuzzState core/routing/monitor:FuzzRecord

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all test-go test-python lint fuzz format bench notebooks native \
        wheel python-matrix clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) \
	  | awk -F ':.*## ' '{ sub(/:.*/, "", $$1); printf "make %-14s %s\n", $$1, $$2 }'

setup: $(VENV)/installed-test ## Install agflow and everything its tests need into .venv

run: $(VENV)/installed ## Set up, then the whole pipeline on the shipped example: agflow run
	$(BIN)/agflow run

test: lint test-go test-python ## Set up, then lint and the fast proof of every claim

test-all: lint ## Set up, then everything: the slow proofs and the benchmarks' tests, too
	$(MAKE) test-go SHORT=
	go test -asan -short $(CHECKED)
	$(PYTEST) python/tests -n $(JOBS) -m 'not bench'
	$(PYTEST) python/tests -m bench

test-go: $(VENV)/installed-test ## Go: core without cgo and assembly, bridge with the race detector
	CGO_ENABLED=0 GOARCH=arm64 go vet ./core/...
	CGO_ENABLED=0 go test $(SHORT) ./core/... ./cli/...
	CGO_ENABLED=0 go test $(SHORT) -tags purego ./core/internal/kernel ./core/statistics ./core/planning
	go test $(SHORT) -race ./bridge/... ./cli/serving/...
	$(GO_PYTHON) test $(SHORT) -tags python ./bridge/pyhost ./cli

test-python: $(VENV)/installed-test ## Python: pytest against the installed package, fast tests only
	$(PYTEST) python/tests -n $(JOBS) -m 'not slow and not bench'

lint: $(VENV)/installed-test ## Formatters, linters and type checker: all clean
	$(BIN)/ruff check python
	$(BIN)/ruff format --check python
	$(BIN)/basedpyright
	@test -z "$$(gofmt -l core bridge cli)" || { gofmt -l core bridge cli; exit 1; }
	go vet ./...
	$(GO_PYTHON) vet -tags python ./...
	go tool staticcheck ./core/... ./bridge/... ./cli/...
	$(GO_PYTHON) tool staticcheck -tags python ./cli

fuzz: ## Fuzz every parser of bytes, FUZZTIME each: make fuzz FUZZTIME=1h
	@for target in $(FUZZED); do \
	  echo "$$target"; \
	  go test "./$${target%:*}" -run '^$$' -fuzz "^$${target#*:}$$" -fuzztime $(FUZZTIME) || exit 1; \
	done

format: $(VENV)/installed-test ## Format Python and Go
	$(BIN)/ruff check --fix --select I python
	$(BIN)/ruff format python
	gofmt -w core bridge cli

bench: $(VENV)/installed-test ## Measure the statistics pass beside numpy, torch and numexpr
	$(BIN)/agflow bench core

notebooks: $(VENV)/installed-test ## Run the notebooks and keep their outputs; 03 where AGFLOW_NOTEBOOK_DATA is set
	PYTHONWARNINGS=ignore:IProgress $(BIN)/jupyter-execute --inplace \
	  $(filter-out $(if $(AGFLOW_NOTEBOOK_DATA),,%/03_deit.ipynb),$(sort $(wildcard notebooks/*.ipynb)))

native: $(BIN)/python ## Install in place (pip install -e), for work on the sources; again after Go changes
	$(BIN)/pip install --quiet --editable '.[test]'
	@rm -f $(VENV)/installed $(VENV)/installed-test

wheel: ## Build the wheel for every Linux with glibc 2.17 or newer, into dist/
	$(PYTHON) python/build_wheel.py

python-matrix: ## Build and try that wheel, without torch, on every CPython 3.10 to 3.13 found here
	$(PYTHON) python/matrix.py

clean: ## Remove everything that was built or installed here
	rm -rf $(VENV) _build dist python/agflow/_bin python/agflow/_core/*.so python/agflow/defaults.json

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info < (3, 14) else \
	  "agflow needs CPython 3.10 to 3.13, %s is %s: name another one with make PYTHON=..." \
	  % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check .
	@touch $@

$(VENV)/installed-test: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check '.[test]'
	@touch $@ $(VENV)/installed
