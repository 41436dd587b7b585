#!/usr/bin/env bash
# Runs tests, benchmarks, peers and trainings on this machine's NVIDIA card. Needs a driver from 580 on; neither Rust nor CUDA.
#
#   ./run.sh [FOLDER]        logs, JSON files and summary.json into FOLDER [default: results-DATE]
#
#   QUICK=1                  leaves out the sanitizer, Fashion-MNIST and the long table of benchmarks
#   EPOCHS=64                epochs of Fashion-MNIST [default: 8]
#   CUDA_VISIBLE_DEVICES=1   another card
set -uo pipefail
cd "$(dirname "$0")"

out=$(realpath -m "${1:-results-$(date +%Y%m%d-%H%M%S)}")
mkdir -p "$out" || exit 2
tests=$out/gpu-tests
gzip -dc bin/gpu-tests.gz >"$tests" && chmod +x "$tests" || exit 2
export ADALI_TEST_DEVICE=cuda RUST_TEST_THREADS=1 RUST_BACKTRACE=1
card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1)
summary=() failed=0

# step NAME SECONDS COMMAND…: the command's output goes to NAME.log; what it prints as JSON is in the log as well.
step() {
    local name=$1 limit=$2 begin=$SECONDS code
    shift 2
    printf '%-22s ' "$name"
    timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1 </dev/null
    code=$?
    local seconds=$((SECONDS - begin)) said="ok"
    [ $code = 0 ] || said="FAILED ($code), see $out/$name.log"
    [ $code = 124 ] && said="over its limit of $limit s, see $out/$name.log"
    [ $code = 0 ] || failed=$((failed + 1))
    echo "$said, $seconds s"
    summary+=("{\"step\": \"$name\", \"exit\": $code, \"seconds\": $seconds, \"limit\": $limit}")
    printf '{"card": "%s", "date": "%s", "steps": [%s]}\n' "$card" "$(date -Iseconds)" \
        "$(IFS=,; echo "${summary[*]}")" >"$out/summary.json"
    return $code
}

left_out() {
    printf '%-22s left out: %s\n' "$1" "$2"
    summary+=("{\"step\": \"$1\", \"left_out\": \"$2\"}")
}

# train NAME LIMIT ARGUMENTS…: result.json of the run as NAME.json.
train() {
    local name=$1 limit=$2
    shift 2
    step "$name" "$limit" bin/adali train --device cuda --out "$out/$name" --force --json "$@"
    local code=$?
    cp "$out/$name/result.json" "$out/$name.json" 2>/dev/null
    return $code
}

step system 60 bash -ec 'nvidia-smi; bin/adali info; bin/adali info --kernels' || {
    echo "no card or no driver: nothing else can run" >&2
    exit 1
}
# The whole path first: a network that learns, and the same bytes without graphs.
train digits 300
step digits-accuracy 10 awk -F'[:,]' '/"test_accuracy"/ { print $2; exit !($2 > 0.97) }' "$out/digits.json"
train digits-eager 300 --no-graph
step graph-equals-eager 10 cmp "$out/digits/model.safetensors" "$out/digits-eager/model.safetensors"
train digits-f32 300 --precision f32
train digits-f16 300 --precision f16

# A process per test, because a fault of one would stay in the context of all; eight at a time, and nothing is timed meanwhile.
tests() {
    local name=$1 limit=$2
    shift 2
    step "$name" "$limit" bash -c 'program=$1; shift
        "$program" --list --format terse "$@" | sed -n "s/: test$//p" | xargs -P 8 -I{} "$program" --exact {}' _ "$tests" "$@"
}
tests drivers 300 promises::
tests kernels 600 kernels::
tests networks 600 networks::
# The program that a killed training needs is the one that was built with the tests; it is elsewhere.
tests trainings 600 trainings:: --skip killed

# What AdaLi costs beside arctan and sigmoid: single operations, then whole trainings.
step cost 600 bin/adali compare --cost --device cuda --out "$out/cost"
step compare 900 bin/adali compare --device cuda --seeds 1 --out "$out/compare" --force

# Every kernel alone, checked, beside its floor; the slopes in identical kernels; a training step.
bench() {
    local name=$1 limit=$2
    shift 2
    step "$name" "$limit" bin/adali bench --device cuda --json "$out/$name.json" "$@"
}
bench bench 600 --svg "$out/bench.svg"
bench bench-f16 600 --precision f16
bench bench-surrogates 300 --surrogates --shape T=4,N=64,C=64,H=32 --shape T=16,N=64,C=64,H=32
bench bench-step 300 train_step --network peers/step.toml --input 3x64x64 --surrogate adali,arctan,sigmoid
[ -n "${QUICK:-}" ] || bench bench-all 900 --all

# The same work in PyTorch, SpikingJelly and snnTorch. Wheels are archives that Python can open.
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    for wheel in wheels/*.whl; do
        [ -e "$wheel" ] && python3 -m zipfile -e "$wheel" "$out/peer-packages"
    done
    # What the machine has comes first.
    packages=$(python3 -c 'import sys; print(":".join(path for path in sys.path if "-packages" in path))')
    export PYTHONPATH="$packages:$out/peer-packages"
    peers() {
        local name=$1 limit=$2
        shift 2
        step "$name" "$limit" python3 peers/peers.py "$@" --device cuda --adali bin/adali --json "$out/$name.json"
    }
    peers peers-neuron-f32 900 neuron --shape N=1,C=1024,H=32,W=32
    peers peers-neuron-f16 900 neuron --precision f16 --shape N=64,C=64,H=32,W=32
    peers peers-block 900 block --precision bf16
    peers peers-step 900 step --precision bf16
else
    left_out peers "python3 has no PyTorch that sees the card"
fi

if [ -n "${QUICK:-}" ]; then
    left_out sanitizer "QUICK"
    left_out fashion-mnist "QUICK"
else
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck initcheck; do
            step "$tool" 900 compute-sanitizer --tool $tool --error-exitcode 1 bin/adali train --device cuda \
                --epochs 1 --limit 128 --out "$out/$tool" --force --no-graph
        done
    else
        left_out sanitizer "compute-sanitizer is not there"
    fi
    if [ -d data/fashion-mnist ]; then
        train fashion-mnist 1200 --data fashion-mnist --data-dir data/fashion-mnist --network csnn \
            --epochs "${EPOCHS:-8}"
    else
        left_out fashion-mnist "data/fashion-mnist is not there"
    fi
fi

echo "$failed failed; $out/summary.json"
[ $failed = 0 ]
