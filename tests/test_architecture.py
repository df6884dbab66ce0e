"""What docs/architecture.md promises of the shape of the code, counted."""

import ast
import itertools
import re
import sys
from pathlib import Path

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet, engines
from mvae_fast.engines import cpp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mvae_fast"
MODULES = sorted(
    path
    for folder in (PACKAGE, ROOT / "kernels")
    for path in folder.rglob("*.py")
    if "kernels" not in path.relative_to(ROOT).parts[1:]
)


def calls(path):
    """The names that are called in a module, with dots."""
    return {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }


def test_torch_ops_are_in_one_file():
    users = [path for path in MODULES if "torch.ops" in path.read_text()]
    assert users == [PACKAGE / "engines" / "ops.py"]


def test_ops():
    defined = set(re.findall(r'"(\w+)\(', (PACKAGE / "engines" / "schemas.inc").read_text()))
    assert defined == {"solve", "solve_backward"}
    defined |= {f"triton_{name}" for name in defined}
    python = (PACKAGE / "engines" / "ops.py").read_text()
    defined |= set(re.findall(r'_FRAGMENT\.define\("(\w+)\(', python))
    for source in (ROOT / "csrc").rglob("*.cpp"):
        defined |= set(re.findall(r'm\.def\(\s*"(\w+)\(', source.read_text()))
    assert len(defined) == 9, defined
    if cpp.why_missing() is None:
        known = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names()
                 if name.startswith("mvae_fast::")}  # fmt: skip
        assert known == defined


def test_ends_of_a_solve():
    """Where steps are taken: four engines, and torchdiffeq."""
    ends = {engine.solve for engine in engines._ENGINES.values()}
    assert len(ends) == len(engines.ENGINES) == 4
    integrators = {"odeint", "odeint_adjoint", "integrator"}
    torchdiffeq = [path.name for path in MODULES if calls(path) & integrators]
    # `mvae-fast bench` measures FFJORD's own scheme, which is no path of ours.
    assert torchdiffeq == ["bench.py", "torchdiffeq.py"]
    # A loop over steps: the reference's two, of traces and of log-determinants.
    loops = [path.name for path in MODULES if "for s in range(h.shape[0])" in path.read_text()]
    assert loops == ["logdet.py", "reference.py"]


def test_predicates_outside_engines():
    """What decides between paths before a problem is an engine's: all that says why not."""
    found = set()
    for path in MODULES:
        if path.parent.name in ("cpu", "engines", "kernels", "device"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in PREDICATES:
                found.add(node.name)
    assert found == set(PREDICATES) and len(found) <= 6


#: Asked on the way from a call of a flow to a problem.
PREDICATES = ("fused", "_obstacle", "_foreign", "must_be_called", "unreadable", "altered")


def test_nothing_outside_engines_asks_which_one():
    for path in MODULES:
        if path.parent.name != "engines":
            asked = calls(path) & {"engines.choose", "engines.get", "choose"}
            assert not asked, (path, asked)


@pytest.mark.parametrize("root", ["mvae_fast", "kernels", "benchmarks", "build_backend"])
def test_files_a_level(root):
    levels = {path.parent for path in (ROOT / root).rglob("*.py")}
    for level in levels:
        assert len(list(level.glob("*.py"))) <= 12, level
    for level in (ROOT / "csrc", *(ROOT / "csrc" / "cpu").rglob("*")):
        if level.is_dir():
            assert sum(path.is_file() for path in level.iterdir()) <= 12, level


def test_the_map_names_every_benchmark():
    rows = (ROOT / "docs" / "architecture.md").read_text().splitlines()
    for folder in ("", "/clients", "/common", "/gpu", "/peers"):
        (row,) = [line for line in rows if line.startswith(f"| `benchmarks{folder}/` |")]
        files = {path.stem for path in (ROOT / f"benchmarks{folder}").glob("*.py")} - {"__init__"}
        assert files <= set(re.findall(r"`(\w+)`", row)), folder


@pytest.mark.skipif(cpp.why_missing() is not None, reason="needs the C++ engine")
@pytest.mark.parametrize("training", [False, True])
def test_calls_from_a_flow_to_the_op(training):
    """Python's calls below `FastCNF.forward` that are on the stack when the op is called."""
    flow = FastCNF(ODEfunc(ODEnet((8,), (2,))), n_steps=1, trace="exact", engine="cpp")
    z, logp = torch.zeros(3, 2), torch.zeros(3, 1)
    stacks = []

    def profile(frame, event, argument):
        if event == "call" and frame.f_code.co_qualname.endswith("OpOverload.__call__"):
            names = []
            while frame is not None and frame.f_code is not FastCNF.forward.__code__:
                names.append(frame.f_code.co_qualname)
                frame = frame.f_back
            stacks.append(names)

    with torch.set_grad_enabled(training):
        flow(z, logp)
        sys.setprofile(profile)
        try:
            flow(z, logp)
        finally:
            sys.setprofile(None)
    assert len(stacks) == 1
    assert len(stacks[0]) <= 6, stacks[0]


#: From the op to the register tile: the function that calls the next one. Between `forward` and
#: `forward_tile` a worker's own function lies, a lambda.
CHAIN = [
    ("csrc/arguments.h", "solve"),
    ("csrc/solve.cpp", "forward"),
    ("csrc/cpu/sweep/forward.h", "forward"),
    ("csrc/cpu/sweep/forward.h", "forward_tile"),
    ("csrc/cpu/sweep/forward.h", "forward_step"),
    ("csrc/cpu/sweep/forward.h", "evaluate"),
    ("csrc/cpu/net/layout.h", "layer_product"),
    ("csrc/cpu/simd/products.h", "rows_times"),
    ("csrc/cpu/simd/gemm.h", "rows_times"),
    ("csrc/cpu/simd/gemm.h", "run_tile"),
]


def body(path, name):
    """The text of a C++ function, from its first brace to the one that closes it."""
    text = (ROOT / path).read_text()
    begin = re.search(rf"^ *(?:[\w:<>&*]+ )+{name}\([^;{{}}]*\) (?:const )?{{", text, re.M).end()
    depth, end = 1, begin
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[begin:end]


def test_calls_from_the_op_to_the_register_tile():
    for (path, name), (_, following) in itertools.pairwise(CHAIN):
        assert re.search(rf"\b{following}(<.*>)?\(", body(path, name)), (path, name, following)
    assert "run_workers(" in body(*CHAIN[2])
    assert "tile_for<" in body(*CHAIN[-1])  # which gives the register tile that is called
    assert len(CHAIN) + len(["a worker", "register_tile"]) <= 12
