.PHONY: demo test bench lib

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
	set -e; for each in $(sort $(wildcard benchmarks/*.py)); do $(VENV)/bin/python $$each; done

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
