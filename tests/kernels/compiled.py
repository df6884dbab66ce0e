"""Compile the Triton kernels for a GPU that need not be there, and print what they take.

Run as a script, in a process of its own: where TRITON_INTERPRET is set nothing is compiled.
Arguments: compute capabilities, as 80 or 90; "square" before them for few kinds of solve, in which
every pair of operand, batch and trace occurs, with those that take the most stack; or "options":
every option once, for what the interpreter, which knows no types, lets through. Prints one JSON
object a line. "nan_to_number" is how many instructions of NaN and a number take the number, where
the interpreter takes NaN.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
import triton.backends.nvidia
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mvae_fast.kernels import launch
from mvae_fast.kernels.adjoint import adjoint_kernel
from mvae_fast.kernels.forward import forward_kernel
from mvae_fast.kernels.table_gradient import table_gradient_kernel

TRACES = {"vector": 2, "matrix": 3, "probes": 4}
OPERANDS = {"bf16": ("bf16", "tf32"), "tf32": ("fp32", "tf32"), "full": ("fp32", "tf32x3")}
BATCHES = (256, 5000, 16384)  # tiles of 16, 32 and 64 rows on 132 processors
# How the arguments of the kernels are passed; all others are pointers to float32.
OPERAND_POINTERS = {"weight", "x_scratch", "x_tape", "delta_tape", "left", "right"}
INTEGER_POINTERS = {"widths", "report", "following", "tile_table"}
INTEGERS = set(
    "B D K L R first_step steps first_tile tiles checkpoint n_penalties slabs slab_rows".split()
)
INTEGERS |= {"blocks_per_split", "probe_stride", "probe_row_stride"}
ALIGNED = set("x_ld delta_ld f_ld sums_ld left_ld right_ld tape_rows size slab_stride".split())
ALIGNED |= {f"{name}_stride" for name in ("weight", "gate", "bias", "trace", "second")}


def compiled(kernel, constants, operand, capability, config):
    """Registers, bytes of stack (spills among them) and of shared memory, and tensor-core calls."""
    signature, attributes = {}, {}
    for position, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        matrix = constants.get("TRACE") == TRACES["matrix"]
        table = name == "second" or (name == "trace" and matrix)
        if name in INTEGERS or name in ALIGNED:
            signature[name] = "i32"
        elif name in INTEGER_POINTERS:
            signature[name] = "*i32"
        else:
            rounded = name in OPERAND_POINTERS or table
            plain = "fp64" if operand == "fp64" else "fp32"
            signature[name] = "*" + (operand if rounded else plain)
        if name not in INTEGERS:
            attributes[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": config.warps, "num_stages": config.stages}
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    used = re.search(r"REG:(\d+) STACK:(\d+)", resources(binary.asm["cubin"]))
    assert used is not None
    ptx = binary.asm["ptx"]
    return {
        "registers": int(used[1]),
        "stack": int(used[2]),
        "shared": binary.metadata.shared,
        "tensor_core_calls": ptx.count("wgmma.mma_async") + ptx.count("mma.sync"),
        "nan_to_number": len(re.findall(r"\b(?:max|min)\.f(?:32|64)\b", ptx)),
    }


def resources(cubin):
    """What cuobjdump, which comes with Triton, says of a binary."""
    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [tool, "--dump-resource-usage", path]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kernels(operand, batch, trace):
    """Name, kernel, constants and configuration of what a solve launches."""
    dtype, precision = OPERANDS[operand]
    size = 2 if dtype == "bf16" else 4
    config = launch.choose(batch, size, 132, operand == "full")
    common = {"DT": tl.float32, "PRECISION": precision}
    sweep = common | {
        "KIND": 0,
        "GATED": True,
        "RESIDUAL": False,
        "TRACE": TRACES[trace],
        "TANGENTS": trace == "probes",
        "SECOND": False,
        "SLOPES": trace == "matrix",
        "PENALTIES": 0,
        "BM": config.rows,
        "BK": config.depth,
        "R": 1,  # Euler's method: Triton takes a 1 for a constant
    }
    yield "forward", forward_kernel, sweep | {"SAVE": True, "BN": config.columns}, config
    adjoint = sweep | {"TABLES": True, "BN": config.adjoint_columns}
    yield "adjoint", adjoint_kernel, adjoint, config
    if trace == "vector":
        tiles = {"BI": 64, "BJ": 64, "BR": 64 if size == 2 else 32, "slabs": 1}
        four = launch.Config(64, 64, 64, 32, 4, config.stages)
        yield "table_gradient", table_gradient_kernel, common | tiles, four


def options():
    """Changes of the constants of a solve, and the type of its operands; None: not a constant."""
    probes = {"TRACE": 4, "TANGENTS": True}
    all_penalties = {"PENALTIES": 15, "RESIDUAL": True}
    second = {"SECOND": True, "SLOPES": True}
    yield {"KIND": 1, "TRACE": 0, "SAVE": False, "TABLES": False}, "fp32"
    yield {"KIND": 2, "TRACE": 1, "GATED": False}, "fp32"
    yield {"KIND": 3}, "fp32"
    yield {"KIND": 4, "GATED": False, "TABLES": False} | probes, "fp16"
    yield {"KIND": 5, "R": None} | probes | all_penalties, "bf16"
    yield {"KIND": 6, "TANGENTS": True} | all_penalties, "fp32"
    yield {"TRACE": 3, "SLOPES": True, "TANGENTS": True, "PENALTIES": 9}, "fp16"
    yield second | {"KIND": 1, "GATED": False, "PENALTIES": 2}, "bf16"
    yield second | {"PENALTIES": 4}, "fp32"
    # Triton takes every argument that is 1 for a constant.
    ones = dict.fromkeys(("B", "D", "K", "L", "checkpoint", "n_penalties", "sums_ld"), 1)
    yield ones | {"KIND": 2, "TRACE": 1, "PENALTIES": 2}, "fp32"
    yield ones | probes | {"PENALTIES": 8}, "bf16"
    double = {"DT": tl.float64, "PRECISION": "ieee", "BN": 16, "BK": 16}
    yield double | probes | all_penalties | {"R": None}, "fp64"
    yield double | {"TRACE": 3, "SLOPES": True}, "fp64"


def compile_options():
    """Forward and adjoint with each of `options`."""
    for changes, operand in options():
        for name, kernel, constants, config in kernels("tf32", BATCHES[0], "vector"):
            if name == "table_gradient":
                continue
            chosen = {
                key: value
                for key, value in (constants | changes).items()
                if key in kernel.arg_names and value is not None
            }
            used = compiled(kernel, chosen, operand, 80, config)
            print(json.dumps({"kernel": name, "kind": changes.get("KIND", 0), **used}))


def kinds(square):
    """What solves there are: operands, batches and traces."""
    numbered = (list(enumerate(x)) for x in (OPERANDS, BATCHES, TRACES))
    for (i, operand), (j, batch), (k, trace) in itertools.product(*numbered):
        # Of the tiles in the middle all but the square has only those with the most to hold: time.
        if k == (i - j + 1) % 3 if square else j != 1 or trace == "matrix":
            yield operand, batch, trace


def main():
    if sys.argv[1:] == ["options"]:
        return compile_options()
    square = sys.argv[1] == "square"
    for capability in map(int, sys.argv[1 + square :]):
        for operand, batch, trace in kinds(square):
            for name, kernel, constants, config in kernels(operand, batch, trace):
                used = compiled(kernel, constants, OPERANDS[operand][0], capability, config)
                row = {"capability": capability, "operand": operand, "rows": config.rows}
                print(json.dumps({"kernel": name, "trace": trace, **row, **used}))


if __name__ == "__main__":
    main()
