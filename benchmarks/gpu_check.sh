#!/usr/bin/env bash
# All that needs a GPU, in one command and less than ten minutes, without network:
#
#   benchmarks/gpu_check.sh [--quick] [--skip-build] [FOLDER]
#
# builds the extensions, tests the GPU engines against the oracle, under compute-sanitizer and in
# CUDA graphs, and measures them. Logs go to FOLDER (default benchmarks/results/gpu-check), results
# beside it as gpu-<card>*.json, or into FOLDER where it is given.
#
# A stage may take the time that the earlier ones left; one that fails or runs out of time does not
# stop the others. Exit status: 0, 1 if a stage failed, 2 for wrong arguments, 3 without a GPU, where
# it stops at the first device call.
# PYTHON names the interpreter (default python3).

set -u

usage() { sed -n 's/^#   //p' "$0"; }

quick= build=1 folder=
for argument in "$@"; do
    case $argument in
        --quick) quick=1 ;;
        --skip-build) build= ;;
        -h | --help) usage; exit 0 ;;
        -*) echo "unknown option $argument; usage:" >&2; usage >&2; exit 2 ;;
        *) folder=$argument ;;
    esac
done

results=${folder:-benchmarks/results}
[[ -z $folder || $folder == /* ]] || results=$PWD/$folder
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
folder=$results
[[ $results != benchmarks/results ]] || folder=benchmarks/results/gpu-check
mkdir -p "$folder" || exit 1

export folder python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export TRITON_INTERPRET=0 # set to 1 it would have Triton's kernels run on the CPU
# The size that PyTorch takes on Hopper anyway. Set, cuBLAS gives the same bits on every stream.
export CUBLAS_WORKSPACE_CONFIG=${CUBLAS_WORKSPACE_CONFIG:-:4096:8}
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin

readonly NOT_RUN=77 # the exit status of a stage that could not run, as in automake
readonly NO_GPU=3   # that of benchmarks.gpu.device
summary=() failed=0 planned=0 status=0

report() { # RESULT NAME SECONDS NOTE
    local line
    printf -v line '%-8s %-12s %4s s  %s' "$1" "$2" "$3" "$4"
    summary+=("$line")
    echo "$line"
}

# stage NAME SECONDS COMMAND...: SECONDS is its own share of the ten minutes.
stage() {
    local name=$1 log=$folder/$1.log began=$SECONDS result=ok note
    planned=$((planned + $2))
    shift 2
    local left=$((planned - SECONDS))
    if ((left < 1)); then
        status=$NOT_RUN
        report "not run" "$name" 0 "no time left"
        failed=1
        return
    fi
    # An interrupt, not a kill: pytest then still prints what it has.
    timeout --signal=INT --kill-after=10 "$left" "$@" >"$log" 2>&1 </dev/null
    status=$?
    note=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c 1-90)
    case $status in
        # pytest is content where it has skipped all there was.
        0) [[ $note != *" skipped"* || $note == *" passed"* ]] || result="not run" ;;
        "$NOT_RUN") result="not run" ;;
        "$NO_GPU") result="no GPU" ;;
        124 | 137) result=failed note="out of time after $left s; $note" failed=1 ;;
        *) result=failed note="status $status; $note" failed=1 ;;
    esac
    report "$result" "$name" $((SECONDS - began)) "$note"
}

finish() { # STATUS
    printf '%s\n' "${summary[@]}" >"$folder/summary.txt"
    echo
    echo "Logs and summary.txt: $folder"
    exit "$1"
}

environment() {
    for command in "nvidia-smi" "nvcc --version" "${CXX:-c++} --version" "$python --version" \
        "compute-sanitizer --version" "uname -srm" "nproc" "git rev-parse HEAD"; do
        echo "\$ $command"
        $command 2>&1 || echo "(status $?)"
    done
}

build_extensions() {
    # For this card alone, unless more is asked for; without one, as far as that goes.
    [[ ${TORCH_CUDA_ARCH_LIST:-} ]] || TORCH_CUDA_ARCH_LIST=$(nvidia-smi \
        --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
    export TORCH_CUDA_ARCH_LIST MVAE_FAST_FORCE_CUDA=1
    "$python" setup.py build_ext --inplace || return
    # A failed build is no failed command: it leaves its reason.
    ! cat mvae_fast/*build_error*.txt 2>/dev/null
}

sanitize() { # TOOL
    local status
    command -v compute-sanitizer >/dev/null || {
        echo "compute-sanitizer is not installed"
        return 77
    }
    # PyTorch's allocator would hide an access beyond a tensor in a larger block of its own.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 1 \
        "$python" -m tests.gpu.odd_sizes
    status=$?
    ! grep -q "Device not supported" "$folder/$1.log" || {
        echo "compute-sanitizer does not work on this machine: Device not supported"
        return 77
    }
    return $status
}

export -f environment build_extensions sanitize

stage environment 10 bash -c environment
stage modules 10 "$python" -m benchmarks.gpu.modules
if ((status)); then
    cat "$folder/modules.log"
    finish 1
fi
if [[ $build ]]; then
    stage build 90 bash -c build_extensions
else
    planned=$((planned + 90)) # the later stages get its share
    report "not run" build 0 "--skip-build"
fi
stage engines 15 "$python" -m mvae_fast.cli info
stage collect 20 "$python" -m pytest --collect-only -q tests/gpu benchmarks/test_gpu.py
stage device 20 "$python" -m benchmarks.gpu.device
if ((status == NO_GPU)); then
    for name in oracle memcheck racecheck graphs sizes prepare times roofline compiled; do
        report "not run" "$name" 0 "no GPU"
    done
    echo
    echo "No GPU: $(tail -n 1 "$folder/device.log"). Stopped at the first device call."
    ((failed)) && finish 1
    finish "$NO_GPU"
fi

card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 |
    tr 'A-Z ' 'a-z-' | sed 's/^nvidia-//; s/[^a-z0-9-]//g')
saved=$results/gpu-${card:-unknown}
on_gpu=("$python" -m pytest -q -k cuda-)
parallel=()
! "$python" -c 'import xdist' 2>/dev/null || parallel=(-n 14)
nets=() times=() roofline=()
if [[ $quick ]]; then
    nets=(-k "cuda- and (squash or larger or option)")
    times=(--workloads W2 --batches 256,1024)
    roofline=(--workloads W2 --batches 1024)
fi

stage oracle 130 "${on_gpu[@]}" "${parallel[@]}" "${nets[@]}" tests/gpu \
    --ignore tests/gpu/test_graphs.py --ignore tests/gpu/test_sizes.py
# Their kernels are those of tests/gpu/test_odd_sizes.py, so compiled by now.
stage memcheck 35 bash -c 'sanitize memcheck'
stage racecheck 35 bash -c 'sanitize racecheck'
stage graphs 25 "${on_gpu[@]}" tests/gpu/test_graphs.py
stage sizes 20 "${on_gpu[@]}" tests/gpu/test_sizes.py
# The measurements once at the same time, which is no way to measure but one to compile kernels.
if [[ ${parallel[*]} ]]; then
    stage prepare 30 "$python" -m pytest -q "${parallel[@]}" benchmarks/test_gpu.py "${times[@]}"
else
    report "not run" prepare 0 "needs pytest-xdist"
fi
stage times 100 "$python" -m pytest -q benchmarks/test_gpu.py "${times[@]}" --out "$saved.json"
stage roofline 35 "$python" -m benchmarks.gpu.roofline "${roofline[@]}"
((status)) || cp "$folder/roofline.log" "$saved-roofline.md"
# The aims of W2; compiling takes minutes: last, with all that is left.
[[ $quick ]] || stage compiled 10 "$python" -m pytest -q benchmarks/test_gpu.py --compiled \
    --workloads W2 --batches 1024 --precisions tf32 --out "$saved-compiled.json"
finish "$failed"
