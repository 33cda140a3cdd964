.PHONY: demo dev check lint test other-pythons lowest-versions bench docs wheel lib gpu gpu-lib gpu-test gpu-bench gpu-steps

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
SEED ?= 0
# The build of onnxruntime: gpu (which runs on the CPU, too) or cpu. There is one at a time.
RUNTIME ?= $(if $(filter x86_64,$(shell uname -m)),gpu,cpu)
# An index with builds of torch for CPUs, where the usual one only has gigabytes of CUDA.
TORCH_INDEX ?=

# The tools of $(VENV): cmake, ninja, ruff ...
demo dev check lint test bench docs wheel lib: export PATH := $(BIN):$(PATH)

# Shrink, train, grow, train on, with images: make demo [IMAGES=folder with one folder per class]
demo: $(VENV)/demo.installed
	@$(MAKE) --no-print-directory lib
	$(BIN)/python samples/digits.py --seed $(SEED) \
		$(if $(IMAGES),--images "$(IMAGES)")

# A place to work in: $(VENV) runs this checkout as it stands, Python files at once, C++ files after
# the next of make lib, check or test.
dev: $(VENV)/dev.installed
	@$(MAKE) --no-print-directory lib

# Everything that takes seconds, and the tests of one part: make check T=tests/passes
T ?= tests
check: dev
	@$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 pytest $(T)

lint: $(VENV)/dev.installed
	ruff check
	ruff format --check
	$(if $(wildcard .clang-format),find custom_ops -name '*.cpp' -o -name '*.cu' -o -name '*.h' | \
		xargs clang-format --dry-run --Werror)
	lint-imports --no-logo
	mypy

# What CI runs: all of it.
# The oldest onnxruntime that we promise, and the newest, beside the one of $(VENV).
RUNTIMES := build/runtimes/1.24.1 build/runtimes/1.31.1

test: dev $(RUNTIMES)
	@$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadgroup
	@$(MAKE) --no-print-directory other-pythons

# What needs no torch, on the other Pythons that pyproject.toml promises, as far as they are here.
other-pythons:
	.ci/other_pythons 3.12 3.13

# The same with the oldest packages that pyproject.toml promises; on demand.
lowest-versions: dev
	.ci/lowest_versions

bench: dev
	set -e; for each in $(sort $(filter-out %_cuda.py,$(wildcard benchmarks/*.py))); do \
		python $$each; done

docs: dev $(VENV)/docs.installed
	mkdocs build --strict

# A wheel and a source distribution, into dist/. auditwheel names the oldest systems that can load
# the wheel's library, by the versions of the C and C++ libraries that it needs: manylinux_2_34 with
# gcc 12 on Debian 12.
wheel: $(VENV)/dev.installed
	rm -rf build/wheel
	pip wheel -q --no-deps --no-build-isolation --wheel-dir build/wheel .
	auditwheel repair --wheel-dir dist build/wheel/*.whl
	python -c "from scikit_build_core.build import build_sdist; build_sdist('dist')"

# The kernel library, into the source tree; compiles what has changed.
lib:
	@$(if $(wildcard $(BIN)/ninja),CMAKE_GENERATOR=Ninja) cmake -S . -B build/lib \
		--log-level=WARNING -DCMAKE_INSTALL_PREFIX=graphscale -DCMAKE_INSTALL_MESSAGE=LAZY \
		-DCMAKE_COMPILE_WARNING_AS_ERROR=ON
	@cmake --build build/lib --parallel $(shell nproc)
	@cmake --install build/lib

# The dependencies, and this checkout as an editable installation without its library ('lib').
$(VENV)/%.installed: constraints.txt pyproject.toml
	@echo "Setting up $(VENV): some minutes the first time"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),@$(BIN)/pip install -qq -c constraints.txt --index-url $(TORCH_INDEX) torch)
	@$(BIN)/pip install -qq -c constraints.txt scikit-build-core cmake ninja
	@$(BIN)/pip install -qq -c constraints.txt --no-build-isolation \
		--config-settings=wheel.cmake=false --editable ".[$(RUNTIME),$*]"
	$(if $(filter dev,$*),@$(BIN)/pip install -qq -c constraints.txt --no-deps timm)
	@touch $@

build/runtimes/%: | $(VENV)/dev.installed
	@rm -rf $@.part
	@$(BIN)/pip install -qq --no-deps --target $@.part onnxruntime==$*
	@mv $@.part $@

# On a machine with an NVIDIA GPU: builds both libraries for that GPU into the source tree, runs
# the GPU's tests, and measures layers (the parts that are named, for so long) and training steps:
# make -k gpu [PYTHON=...] [RESULTS=folder] [PARTS="goals grid"] [MINUTES=20]
#
# It takes $(PYTHON) as it is (torch for CUDA, onnxruntime-gpu, onnx, onnxscript, rich, pytest,
# matplotlib) and installs nothing; nvcc and CMake are on the PATH, and onnxruntime_c_api.h is in
# build/onnxruntime/include (custom_ops/get_onnxruntime_headers.sh) or where CMake finds it.
RESULTS ?= benchmarks/results
PARTS ?=
MINUTES ?= 60
GPU = $(shell $(PYTHON) -c "import torch; print('%d%d-real' % torch.cuda.get_device_capability())" \
	2>/dev/null)
IN_TREE = PYTHONPATH="$(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))" $(PYTHON)

gpu: gpu-test gpu-bench gpu-steps

gpu-lib:
	@test -n "$(GPU)" || { echo "make gpu: the torch of PYTHON=$(PYTHON) is missing or sees no GPU;" \
		"give a python whose torch does"; exit 2; }
	cmake -S . -B build/gpu -DCMAKE_INSTALL_PREFIX=graphscale -DGRAPHSCALE_CUDA=ON \
		-DCMAKE_CUDA_ARCHITECTURES=$(GPU)
	cmake --build build/gpu --parallel $(shell nproc)
	cmake --install build/gpu

gpu-test: gpu-lib
	$(IN_TREE) -m pytest -rs -m gpu tests/gpu

gpu-bench: gpu-lib
	$(IN_TREE) benchmarks/fft_conv_cuda.py $(PARTS) --out "$(RESULTS)" --minutes $(MINUTES)

gpu-steps: gpu-lib
	$(IN_TREE) benchmarks/training_steps_cuda.py --out "$(RESULTS)" --minutes $(MINUTES)
