.PHONY: demo test bench lib gpu gpu-lib gpu-test gpu-bench

PYTHON ?= python3
VENV := .venv
SEED ?= 0
# An index with builds of torch for CPUs, where the usual one only has gigabytes of CUDA.
TORCH_INDEX ?=
SOURCES := $(shell find graphscale passes custom_ops \
	\( -name __pycache__ -o -name lib \) -prune -o -type f -print)

# Shrink, train, grow, train on, with pictures: make demo [IMAGES=folder with one folder per class]
# Threads that wait on each other sleep: spinning, they cost a busy machine of few cores the most.
demo: $(VENV)/demo.installed
	OMP_WAIT_POLICY=passive $(VENV)/bin/python samples/digits.py --seed $(SEED) \
		$(if $(IMAGES),--images "$(IMAGES)")

# The oldest onnxruntime that we promise, and the newest, beside the one of $(VENV).
RUNTIMES := build/runtimes/1.24.1 build/runtimes/1.31.1

test: $(VENV)/test.installed $(RUNTIMES)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2

bench: $(VENV)/test.installed
	set -e; for each in $(sort $(filter-out %_cuda.py,$(wildcard benchmarks/*.py))); do \
		$(VENV)/bin/python $$each; done

$(VENV)/%.installed: constraints.txt pyproject.toml CMakeLists.txt $(SOURCES)
	@echo "Setting up $(VENV): some minutes the first time"
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),@$(VENV)/bin/pip install -qq -c constraints.txt --index-url $(TORCH_INDEX) torch)
	@$(VENV)/bin/pip install -qq -c constraints.txt ".[$*]"
	@touch $@

build/runtimes/%: | $(VENV)/test.installed
	@rm -rf $@.part
	@$(VENV)/bin/pip install -qq --no-deps --target $@.part onnxruntime==$*
	@mv $@.part $@

# The kernel library, into the source tree, for work on it.
lib:
	cmake -S . -B build/lib -DCMAKE_INSTALL_PREFIX=graphscale
	cmake --build build/lib --parallel
	cmake --install build/lib

# On a machine with an NVIDIA GPU: builds both libraries for that GPU into the source tree, runs
# the GPU's tests, and measures (the parts that are named, for so long):
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

gpu: gpu-test gpu-bench

gpu-lib:
	@test -n "$(GPU)" || { echo "make gpu: the torch of PYTHON=$(PYTHON) is missing or sees no GPU;" \
		"give a python whose torch does"; exit 2; }
	cmake -S . -B build/gpu -DCMAKE_INSTALL_PREFIX=graphscale -DGRAPHSCALE_CUDA=ON \
		-DCMAKE_CUDA_ARCHITECTURES=$(GPU) -DCMAKE_COMPILE_WARNING_AS_ERROR=OFF
	cmake --build build/gpu --parallel $(shell nproc)
	cmake --install build/gpu
	ln -sfn ../passes graphscale/passes

gpu-test: gpu-lib
	$(IN_TREE) -m pytest -rs -m gpu tests/gpu

gpu-bench: gpu-lib
	$(IN_TREE) benchmarks/fft_conv_cuda.py $(PARTS) --out "$(RESULTS)" --minutes $(MINUTES)
