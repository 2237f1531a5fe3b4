# Every habit of the project; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV ?= $(CURDIR)/.venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q
PYTHON ?= python3
SYSTEM_PACKAGES := gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm qemu-user \
  gcc-aarch64-linux-gnu libc6-dev-arm64-cross clang-format mosquitto systemd groff-base

help: ## list the habits
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# --- set-up: each stamp is one set of installed extras --------------------------------------
$(VENV)/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "edgeloop needs Python 3.11 or newer; call make PYTHON=python3.x"; exit 1; }
	@command -v cc >/dev/null || { echo "edgeloop needs a C compiler (cc)"; exit 1; }
	@echo "setting up $(VENV)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install 'scikit-build-core>=0.11' 'cmake>=3.25' ninja
	@$(PIP) install --no-build-isolation -e '.[onnx,cli]'
	@touch $@
$(VENV)/.test: $(VENV)/.base
	@$(PIP) install --no-build-isolation -e '.[test]' && touch $@
$(VENV)/.tasks: $(VENV)/.test
	@$(PIP) install --no-build-isolation -e '.[tasks]' && touch $@
$(VENV)/.fuzz: $(VENV)/.test
	@$(PIP) install --no-build-isolation -e '.[fuzz]' && touch $@
$(VENV)/.bench: $(VENV)/.test
	@$(PIP) install --no-build-isolation -e '.[bench]' && touch $@
$(VENV)/.lint: $(VENV)/.base
	@$(PIP) install --no-build-isolation -e '.[lint]' && touch $@
$(VENV)/.oracles: $(VENV)/.test
	@$(PIP) install 'torch==2.13.0' && \
	  $(PIP) install onnxscript 'transformers==5.23.0' 'peft==0.21.2' \
	  'bitsandbytes==0.50.2' 'ortools==9.15.6755' librosa 'river>=0.22' scipy && touch $@

setup-system: ## install the programs that some suites need (Debian, root or sudo)
	@S=$$([ $$(id -u) = 0 ] || echo sudo); $$S apt-get update -q >/dev/null && \
	  $$S apt-get install -y -q --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null

build: ## compile the core in place (src/edgeloop/_core)
	@mkdir -p build
	@$(VENV)/bin/cmake -S . -B build/dev -G Ninja -DCMAKE_MAKE_PROGRAM=$(VENV)/bin/ninja \
	  -DPython_EXECUTABLE=$(PY) -DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(CURDIR)/src/edgeloop >build/dev.log 2>&1 \
	  || { cat build/dev.log; exit 1; }
	@$(VENV)/bin/cmake --build build/dev

# --- what users call -------------------------------------------------------------------------
demo: $(VENV)/.base build ## a keyword spotter learns a new speaker; ends with a table
	@$(PY) examples/keyword/demo.py $(ARGS)

test: $(VENV)/.test build ## all tests that need no gigabytes
	@PYTHONPATH=src $(PY) -m pytest tests -m "not oracle" $(ARGS)

# PyTorch takes the same instructions on every machine, so that it rounds as when it was recorded.
test-oracles: $(VENV)/.oracles build ## live comparisons with PyTorch and PEFT
	@ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 PYTHONPATH=src $(PY) -m pytest tests -m oracle $(ARGS)

# --- what developers call --------------------------------------------------------------------
lint: $(VENV)/.lint ## ruff, file length, C format, words that do not belong
	@$(VENV)/bin/ruff check src tests bench examples
	@bash tools/lint.sh

types: $(VENV)/.lint build ## mypy --strict
	@$(VENV)/bin/mypy

contracts: $(VENV)/.lint build ## import directions
	@$(VENV)/bin/lint-imports

FAULTS ?= 10000
crash: $(VENV)/.test build ## 10,000 injected faults: power losses, rot, full disks, kills of `edgeloop run`
	@PYTHONPATH=src EDGELOOP_KILLS=200 EDGELOOP_FAULTS=$(FAULTS) $(PY) -m pytest tests/crash $(ARGS)

soak: $(VENV)/.test build ## a vibration monitor and a keyword spotter live a simulated week, in 20 minutes
	@EDGELOOP_SOAK_SECONDS=1080 PYTHONPATH=src $(PY) -m pytest tests/soak $(ARGS)

swaps: $(VENV)/.test build ## 100,000 requests of 8 clients among 1,000 swaps of versions, each answer checked
	@EDGELOOP_SWAP_REQUESTS=100000 PYTHONPATH=src $(PY) -m pytest tests/serve/test_swap.py $(ARGS)

asan: $(VENV)/.test ## build the core's tests with the address and undefined-behaviour sanitizers
	@mkdir -p build
	@$(VENV)/bin/cmake -S . -B build/asan -G Ninja -DCMAKE_MAKE_PROGRAM=$(VENV)/bin/ninja \
	  -DEL_SANITIZE=address,undefined -DEL_TESTS=ON -DEL_PYTHON=OFF >build/asan.log 2>&1 \
	  || { cat build/asan.log; exit 1; }
	@$(VENV)/bin/cmake --build build/asan

tsan: $(VENV)/.test build ## worker threads and the reader of weights under the thread sanitizer
	@mkdir -p build/tsan
	@$(VENV)/bin/cmake -S . -B build/tsan -G Ninja -DCMAKE_MAKE_PROGRAM=$(VENV)/bin/ninja -DEL_SIMD=OFF \
	  -DEL_SANITIZE=thread -DEL_TESTS=ON -DEL_PYTHON=OFF >build/tsan.log 2>&1 \
	  || { cat build/tsan.log; exit 1; }
	@$(VENV)/bin/cmake --build build/tsan --target port_check
	@PYTHONPATH=src:tests $(PY) -m tests.core.streamed build/tsan/a
	@build/tsan/port_check build/tsan/a.table build/tsan/a.elp $$(cat build/tsan/a.start)

firmware: $(VENV)/.test build ## train on a Cortex-M4F in QEMU; code, stack and RAM sizes
	@PYTHONPATH=src $(PY) -m pytest tests/firmware -s $(ARGS)

FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 1
FUZZ_TARGETS ?= manifest envelope payload artifact onnx recording inference
fuzz: $(VENV)/.fuzz build asan ## hostile tables, packages, programs, models: ten minutes each (FUZZ_SECONDS)
	@rm -rf build/seeds && PYTHONPATH=src $(PY) -m tests.core.seeds build/seeds
	@build/asan/fuzz_check $(FUZZ_SECONDS) $(FUZZ_SEED) build/seeds/*.table
	@printf '%s\n' $(FUZZ_TARGETS) | PYTHONPATH=src:tests:. xargs -P 2 -I{} sh -c '\
	  $(PY) -m tests.fuzz.targets {} $(FUZZ_SECONDS) build/corpus >build/fuzz.{}.log 2>&1 \
	  && echo "{}: clean after $$(grep -o "number_of_executed_units: .*" build/fuzz.{}.log)" \
	  || { echo "{}: a finding"; tail -40 build/fuzz.{}.log; exit 255; }'

# With one of the goals `speed`, `quant`, `cut`, `growth`, `memory`, `resident` or `wear` beside it,
# `bench` leaves the work to that.
ifeq ($(filter speed quant cut growth memory resident wear,$(MAKECMDGOALS)),)
bench: $(VENV)/.oracles build ## kernels; W1 to W3 beside PyTorch eager
	@PYTHONPATH=src $(PY) bench/gemm.py
	@EDGELOOP_TORCH=$(PY) $(PY) bench/peers/build.py --models W1 W2 W3
	@EDGELOOP_TORCH=$(PY) PYTHONPATH=src $(PY) bench/speed.py --peers torch --tasks train,start W1 W2 W3 $(ARGS)
else
bench:
	@:
endif

bench-peers: ## environments and models of the peers, outside of the checkout (about 10 GB)
	@$(PYTHON) bench/peers/build.py $(ARGS)

speed: $(VENV)/.bench build ## `make bench speed`: W1 to W7 beside every peer, after bench-peers
	@PYTHONPATH=src $(PY) bench/speed.py $(ARGS)

growth: $(VENV)/.oracles $(VENV)/.bench build ## `make bench growth`: step time over batch, sequence, layers, rank
	@PYTHONPATH=src $(PY) bench/growth.py $(ARGS)

quant: $(VENV)/.tasks build ## `make bench quant`: what a quantized base costs in points, seven tasks
	@PYTHONPATH=src $(PY) bench/quant.py $(ARGS)

memory: $(VENV)/.oracles build ## `make bench memory`: RAM of training plans beside their goals
	@EDGELOOP_TORCH=$(PY) $(PY) bench/peers/build.py --models W5
	@PYTHONPATH=src $(PY) bench/memory.py $(ARGS)

cut: $(VENV)/.test build ## `make bench cut`: ten epochs over kept features beside ten over samples
	@PYTHONPATH=src $(PY) bench/cut.py $(ARGS)

resident: $(VENV)/.oracles build ## `make bench resident`: a 1.1 B model trains in 192 MB, a 135 M one in 40 MiB
	@PYTHONPATH=src $(PY) bench/resident.py $(ARGS)

wear: $(VENV)/.base build ## `make bench wear`: what checkpoints, versions and copies write, and in a day
	@PYTHONPATH=src $(PY) bench/wear.py $(ARGS)

wheel: $(VENV)/.base ## wheel and sdist into dist/
	@$(PIP) install build && $(PY) -m build --outdir dist . >build/wheel.log 2>&1 || { tail -30 build/wheel.log; exit 1; }
	@ls dist

aarch64: $(VENV)/.test build ## cross-built aarch64 wheel, a training step under qemu-user
	@PY=$(PY) bash tools/aarch64.sh

readme: ## run every command of the README as written, in a fresh copy
	@bash tools/readme.sh

clean: ## remove what was built
	@rm -rf build dist src/edgeloop/_core*.so .cmake .ninja_* .skbuild-info.json CMakeCache.txt CMakeFiles \
	  CMakeInit.txt build.ninja cmake_install.cmake libedgeloop.a

.PHONY: help setup-system build demo test test-oracles lint types contracts crash soak swaps asan tsan fuzz firmware bench bench-peers speed quant cut growth memory resident wear wheel aarch64 readme clean
