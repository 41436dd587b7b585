#!/usr/bin/env bash
# Asks this machine's NVIDIA card all that only a card can tell, in two parts of a few minutes, the most valuable first.
# Needs a driver from 580 on; neither Rust nor CUDA.
#
#   ./run.sh first FOLDER     driver, a training, main operations, tests, profiles
#   ./run.sh second FOLDER    peers in PyTorch, Fashion-MNIST, slopes and precisions, sanitizers, comparisons
#
# FOLDER gets first.tgz or second.tgz: logs and JSON files, written anew after each step. The last lines are a short table.
#
#   LIMIT=240                 seconds for all steps; those that begin later are left out [default: 230, second: 290]
#   EPOCHS=64                 epochs of Fashion-MNIST [default: 2]
#   SMALL=1 SLOW=20           small extents and so many times the patience: for the software GPU
#   CUDA_VISIBLE_DEVICES=1    another card
set -uo pipefail
part=${1:-} out=${2:-}
case $part in first | second) ;; *) part= ;; esac
if [ -z "$part" ] || [ -z "$out" ]; then
    echo "usage: $0 first|second FOLDER" >&2
    exit 2
fi
mkdir -p "$out" && out=$(realpath "$out") && cd "$(dirname "$0")" || exit 2

# Only what shall come back goes to log/, the rest of what is written elsewhere in $work.
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT || exit 2
log=$work/log
mkdir "$log" "$work/bin" || exit 2
for packed in bin/*.gz; do
    program=$work/bin/$(basename "$packed" .gz)
    gzip -dc "$packed" >"$program" && chmod +x "$program" || exit 2
done
adali=$work/bin/adali tests=$work/bin/gpu-tests
export ADALI_TEST_DEVICE=cuda RUST_TEST_THREADS=1 RUST_BACKTRACE=1
card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1)

[ $part = first ] && end=${LIMIT:-230} || end=${LIMIT:-290}
slow=${SLOW:-1} summary=() failed=0
if [ -n "${SMALL:-}" ]; then
    digits="--epochs 6" bench="--rounds 1 --shape T=2,N=2,C=33,H=6,W=7" input=1x8x8 batch="--batch 2"
    slopes="--rounds 1 --shape T=4,N=2,C=32,H=6" short="--limit 64 --steps 2 --channels 8"
    kernels=kernels::pool trainings=trainings::faults
else
    digits="" bench="--rounds 5" input=3x64x64 batch="" short=""
    slopes="--rounds 5 --shape T=4,N=64,C=64,H=32 --shape T=16,N=64,C=64,H=32"
    kernels=kernels:: trainings=trainings::
fi

# Packs all there is so far.
pack() { tar -C "$work" -czf "$out/$part.new" log && mv "$out/$part.new" "$out/$part.tgz"; }

# note JSON: adds a step to the summary.
note() {
    summary+=("$1")
    printf '{"card": "%s", "date": "%s", "steps": [%s]}\n' "$card" "$(date -Iseconds)" \
        "$(IFS=,; echo "${summary[*]}")" >"$log/summary.json"
    pack
}

# left_out NAME REASON
left_out() {
    printf '%-24s left out: %s\n' "$1" "$2" | tee -a "$log/steps.txt"
    note "{\"step\": \"$1\", \"left_out\": \"$2\"}"
}

# step NAME SECONDS COMMAND…: the command's output goes to NAME.log.
step() {
    local name=$1 most=$(($2 * slow)) begin=$SECONDS code
    shift 2
    if ((begin >= end)); then
        left_out "$name" "the part's $end s are over"
        return 1
    fi
    ((most <= end - begin)) || most=$((end - begin))
    timeout --kill-after=5 "$most" "$@" >"$log/$name.log" 2>&1 </dev/null
    code=$?
    local seconds=$((SECONDS - begin)) said=ok
    [ $code = 0 ] || said="FAILED ($code): $(grep -v '^ *$' "$log/$name.log" | tail -1 | cut -c1-120)"
    ((code == 124 || code == 137)) && said="over its limit of $most s"
    [ $code = 0 ] || failed=$((failed + 1))
    printf '%-24s %4d s  %s\n' "$name" $seconds "$said" | tee -a "$log/steps.txt"
    note "{\"step\": \"$name\", \"exit\": $code, \"seconds\": $seconds, \"limit\": $most}"
    return $code
}

# train NAME SECONDS ARGUMENTS…: result.json of the run as NAME.json.
train() {
    local name=$1 most=$2
    shift 2
    step "$name" "$most" "$adali" train --device cuda --out "$work/$name" --json "$@"
    cp "$work/$name/result.json" "$log/$name.json" 2>/dev/null && pack
}

# bench NAME SECONDS ARGUMENTS…
bench() {
    local name=$1 most=$2
    shift 2
    step "$name" "$most" "$adali" bench --device cuda --json "$log/$name.json" "$@"
}

# tests NAME SECONDS ARGUMENTS…: a process per test, because a fault of one would stay in the context of all; eight at a
# time, and nothing is timed meanwhile.
tests() {
    local name=$1 most=$2
    shift 2
    step "$name" "$most" bash -c 'program=$1; shift
        "$program" --list --format terse "$@" | sed -n "s/: test$//p" | xargs -P 8 -I{} "$program" --exact {}' _ "$tests" "$@"
}

has_torch() { python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; }

first() {
    step system 20 bash -ec 'nvidia-smi; "$1" info; "$1" info --kernels' _ "$adali" || {
        echo "no card or no driver: nothing else can run" >&2
        exit 1
    }
    tests driver 40 promises::
    step check 60 "$adali" check --device cuda --json "$log/check.json"

    # The whole path: a network that learns, and the same bytes without graphs.
    train digits 40 $digits
    step digits-accuracy 5 awk -F'[:,]' '/"test_accuracy"/ { print $2; found = $2 } END { exit !(found > 0.97) }' \
        "$log/digits.json"
    train digits-eager 40 $digits --no-graph
    step graph-equals-eager 5 cmp "$work/digits/model.safetensors" "$work/digits-eager/model.safetensors"

    # A process each: an operation that breaks the context shall not take the others with it.
    for operation in conv_lif_forward conv_weight_grad conv_input_grad_lif conv_batch_norm norm_lif_forward \
        spike_backward norm_spike_backward update; do
        bench "bench-$operation" 30 $operation $bench
    done
    bench bench-step-csnn 30 train_step --network csnn $batch
    bench bench-step-peers 30 train_step --network peers/step.toml --input $input $batch
    if has_torch; then
        step torch-rates 30 python3 peers/rates.py
    else
        left_out torch-rates "python3 has no PyTorch that sees the card"
    fi

    tests kernels 60 $kernels
    tests networks 30 networks::
    # The program that a killed training needs is the one that was built with the tests; it is elsewhere.
    tests trainings 60 $trainings --skip killed

    if command -v ncu >/dev/null; then
        for operation in conv_lif_forward conv_weight_grad conv_input_grad_lif norm_lif_forward spike_backward; do
            step "ncu-$operation" 15 ncu --clock-control none --set full --launch-count 1 --kernel-name "regex:^$operation" \
                "$adali" bench $operation --device cuda --rounds 1 --shape T=4,N=64,C=128,H=14
        done
    else
        left_out ncu "ncu is not there"
    fi
}

second() {
    # The same work in PyTorch, SpikingJelly and snnTorch. Wheels are archives that Python can open.
    if has_torch; then
        for wheel in wheels/*.whl; do
            [ -e "$wheel" ] && python3 -m zipfile -e "$wheel" "$work/peer-packages"
        done
        # What the machine has comes first.
        packages=$(python3 -c 'import sys; print(":".join(path for path in sys.path if "-packages" in path))')
        peers() {
            local name=$1 most=$2
            shift 2
            step "$name" "$most" env PYTHONPATH="$packages:$work/peer-packages" python3 peers/peers.py "$@" \
                --device cuda --adali "$adali" --json "$log/$name.json"
        }
        # Without torch.compile, which takes minutes.
        peers peers-step 70 step --precision bf16 \
            --peers pytorch,pytorch+tuned,sj:triton+functional,sj:triton+storage+tuned,snntorch
        peers peers-neuron 50 neuron --shape N=1,C=1024,H=32,W=32 --peers pytorch,sj:cuda,sj:triton,sj:triton+graph,snntorch
    else
        left_out peers "python3 has no PyTorch that sees the card"
    fi

    if [ -d data/fashion-mnist ]; then
        train fashion-mnist 60 --data fashion-mnist --data-dir data/fashion-mnist --network csnn --epochs "${EPOCHS:-2}" $short
    else
        left_out fashion-mnist "data/fashion-mnist is not there"
    fi

    # What AdaLi costs next to other slopes, in kernels that are otherwise the same.
    bench bench-surrogates 40 --surrogates $slopes
    bench bench-f16 60 --precision f16 conv_lif_forward conv_weight_grad norm_lif_forward $bench
    train digits-f16 30 --precision f16 $short
    train digits-f32 60 --precision f32 $short

    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck; do
            step $tool 60 compute-sanitizer --tool $tool --error-exitcode 1 "$adali" train --device cuda --epochs 1 \
                --limit 128 --out "$work/$tool" --no-graph
        done
    else
        left_out sanitizer "compute-sanitizer is not there"
    fi

    if [ -n "${SMALL:-}" ]; then
        left_out compare-cost "SMALL"
    else
        step compare-cost 100 "$adali" compare --cost --device cuda --out "$work/cost"
    fi
    step compare 300 "$adali" compare --device cuda --seeds 1 --out "$work/compare" $short
    for run in cost compare; do
        mkdir "$log/$run" && cp "$work/$run"/*.json "$log/$run/" 2>/dev/null
    done
    pack
}

$part
echo
# Operations of all tables, each with its shape.
cat "$log"/bench-*.log 2>/dev/null | awk '/^ceilings/ && !found++ { print }
    /^[A-Z]=/ { shape = $1 } /^  [a-z_]+ / && !/^  operation/ { print shape $0 }'
echo
cat "$log/steps.txt"
echo "$failed failed; $out/$part.tgz"
[ $failed = 0 ]
