# Every habit of the project; `make help` lists them.
.DEFAULT_GOAL := help
VENV ?= $(CURDIR)/.venv
PY := $(VENV)/bin/python

help: ## list the habits
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

build: ## compile the core in place (src/edgeloop/_core)
	@mkdir -p build
	@$(VENV)/bin/cmake -S . -B build/dev -G Ninja -DCMAKE_MAKE_PROGRAM=$(VENV)/bin/ninja \
	  -DPython_EXECUTABLE=$(PY) -DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(CURDIR)/src/edgeloop >build/dev.log 2>&1 \
	  || { cat build/dev.log; exit 1; }
	@$(VENV)/bin/cmake --build build/dev

.PHONY: help build
