# `cargo` builds everything; this file fetches the one tool that cargo cannot.

# CUDA 13.0 needs driver 580 or newer. PyPI has cuobjdump and nvdisasm from 13.2 on; they also read older files.
WHEELS := nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
          nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 \
          nvidia-cuda-cuobjdump==13.5.37 nvidia-cuda-nvdisasm==13.5.37

.PHONY: help cuda

help: ## Lists the targets.
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile

cuda: ## Puts nvcc, cuobjdump and nvdisasm into .cuda/ (about 300 MB from PyPI; needs python3 with pip or venv).
	@if [ "$$(cat .cuda/wheels.txt 2>/dev/null)" != "$(WHEELS)" ]; then $(MAKE) --no-print-directory .fetch; fi
	@.cuda/bin/nvcc --version | grep release
	@.cuda/bin/cuobjdump --version | grep release

# The list of wheels is written last, so that an interrupted download counts as absent. build.rs is touched because cargo
# cannot watch a folder that does not exist yet.
.PHONY: .fetch
.fetch:
	@command -v python3 >/dev/null || { echo "make cuda: python3 is missing (Debian: apt-get install python3-pip)" >&2; exit 1; }
	@rm -rf .cuda && mkdir .cuda
	@pip="python3 -m pip"; \
	if ! $$pip --version >/dev/null 2>&1; then \
	    python3 -m venv .cuda/venv >/dev/null && pip=".cuda/venv/bin/python -m pip" || { \
	    echo "make cuda: python3 has neither pip nor venv (Debian: apt-get install python3-pip)" >&2; exit 1; }; \
	fi; \
	PIP_ROOT_USER_ACTION=ignore $$pip install --quiet --no-deps --only-binary :all: --target .cuda/wheels $(WHEELS) || { \
	    echo "make cuda: pip could not fetch the wheels (see above; NVIDIA has them for Linux on x86_64 and aarch64)" >&2; exit 1; }
	@cd .cuda && ln -s wheels/nvidia/cu13/* .
	@.cuda/bin/nvcc --version >/dev/null && echo "$(WHEELS)" > .cuda/wheels.txt && touch build.rs

CLANG_FORMAT := .cuda/format/bin/clang-format
KERNEL_FILES = $(shell find kernels -name '*.cu' -o -name '*.cuh')

# All GPU tests and benchmarks, for machines without Rust. The binaries need a glibc at least as new as this machine's.
FASHION := /usr/share/datasets/fashion-mnist

.PHONY: gpu-kit
gpu-kit: ## Packs program, GPU tests and data into gpu-kit/; on a machine with a GPU: ./run.sh first FOLDER.
	@rm -rf gpu-kit && mkdir -p gpu-kit/bin gpu-kit/data
	@ADALI_REQUIRE_CUDA=1 cargo build --release --locked
	@ADALI_REQUIRE_CUDA=1 cargo test --release --locked --no-run --test gpu --message-format=json \
	    | python3 -c 'import json, sys; \
	    built = [json.loads(line) for line in sys.stdin if line.startswith("{")]; \
	    print(*[b["executable"] for b in built if b.get("executable") and b["target"]["name"] == "gpu"])' \
	    > gpu-kit/tests.txt
	@cp target/release/adali gpu-kit/bin/
	@cp "$$(cat gpu-kit/tests.txt)" gpu-kit/bin/gpu-tests && rm gpu-kit/tests.txt
	@strip gpu-kit/bin/* && gzip -9 gpu-kit/bin/*
	@cp tests/gpu-kit/run.sh gpu-kit/
	@cp -r benches/peers gpu-kit/peers && rm -rf gpu-kit/peers/__pycache__
	@# What the peers need in addition to PyTorch; run.sh unpacks it where there is no network.
	@python3 -m pip download --quiet --no-deps --only-binary :all: --dest gpu-kit/wheels \
	    $$(grep -E '^(safetensors|snntorch|spikingjelly)==' benches/peers/requirements.txt) \
	    || echo "make gpu-kit: no wheels of the peers (see above); the kit goes without them" >&2
	@if [ -d $(FASHION) ]; then cp -rL $(FASHION) gpu-kit/data/; fi
	@du -sh gpu-kit && ls gpu-kit/bin
	@test "$$(du -sm gpu-kit | cut -f1)" -lt 60 || { echo "make gpu-kit: the kit must stay below 60 MB" >&2; exit 1; }

.PHONY: format check-format
format: $(CLANG_FORMAT) ## Formats the kernels with clang-format from PyPI.
	@PYTHONPATH=.cuda/format $(CLANG_FORMAT) -i $(KERNEL_FILES)

check-format: $(CLANG_FORMAT) ## Checks the formatting of the kernels.
	@PYTHONPATH=.cuda/format $(CLANG_FORMAT) --dry-run -Werror $(KERNEL_FILES)

$(CLANG_FORMAT):
	@PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --target .cuda/format clang-format==21.1.2
