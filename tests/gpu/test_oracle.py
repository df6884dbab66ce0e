"""Every GPU engine on raw tables against the float64 reference on the CPU: values and gradients.

An engine may be twice as far off as eager PyTorch on the same device in the same precision.
"""

import itertools

import pytest
import torch

from benchmarks.common.precision import operands, products
from tests.gpu.places import CPU, GPU, NEAR, every, moved
from tests.oracles import GPU_NONLINEARITIES, distance, pairwise
from tests.test_integrate import LAYOUTS, LEAVES, SHAPES, TRACES, problem, run

# Every other pair: each shape and each layout still meets several of the others.
CASES = pairwise(SHAPES, list(LAYOUTS), GPU_NONLINEARITIES)[::2]
#: Beyond a tile, and the widths of W2, W3, W5 and W7.
LARGER = [
    (129, 33, (65,)),
    (64, 8, (129, 31)),
    (130, 128, (256,)),
    (70, 128, (256, 256)),
    (66, 64, (512, 512)),
    (65, 43, (430, 430)),
]
#: For these precisions a kernel is compiled for each problem, which takes most of the time.
ROUNDED = [("squash", "softplus"), ("all", "swish")]


def names_of(leaves):
    return ["z", "logp", *(f"d{n}" for n, x in zip(LEAVES, leaves, strict=True) if x is not None)]


def distances(place, arguments, precision, oracle):
    """Of the engine and of eager PyTorch, both on the place's device, tensor by tensor."""
    there = moved(place.device, arguments)
    with products(precision):
        both = [
            run(engine, *there, torch.float32, precision=operands(precision))
            for engine in (place.engine, "reference")
        ]
        if precision == "tf32":
            # A small product of eager PyTorch may not be on tensor cores. float16 has as many bits.
            both.append(run("reference", *there, torch.float32, precision="fp16"))
    assert all(x.device == there[0][0].device and x.dtype == torch.float32 for x in both[0])
    ours, *eagers = ([distance(x, y) for x, y in zip(got, oracle, strict=True)] for got in both)
    return ours, [max(column) for column in zip(*eagers, strict=True)]


@pytest.mark.parametrize(
    ("place", "shape", "layout", "nonlinearity"), every(GPU, CASES) + every(CPU[:1], CASES[::5])
)
def test_full_precision(place, shape, layout, nonlinearity):
    errors = {}
    for trace, residual in zip(TRACES, itertools.cycle((False, True))):
        arguments = problem(shape, layout, nonlinearity, trace, residual)
        names = names_of(arguments[0])
        oracle = run("reference", *arguments, torch.float64)
        for name, *pair in zip(names, *distances(place, arguments, "full", oracle), strict=True):
            errors.setdefault(name, []).append(pair)
        if place.has(dtype=torch.float64):
            double = run(place.engine, *moved(place.device, arguments), torch.float64)
            for name, got, exact in zip(names, double, oracle, strict=True):
                assert distance(got, exact) < 1e-13, f"{name}, {trace}, residual={residual}"
    # On the mean of the problems, and with a floor, because a small tensor may come out exact.
    floor = torch.finfo(torch.float32).eps
    for name, pairs in errors.items():
        ours, eagers = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        assert ours <= 2 * eagers + floor, f"{name}: {ours:.2e} against {eagers:.2e}"


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("place", "layout", "nonlinearity"), every(GPU, ROUNDED) + every(CPU[:1], ROUNDED[:1])
)
def test_rounded_operands(place, layout, nonlinearity, precision):
    place.require(precision)
    ours = eagers = 0.0
    for shape, trace in itertools.product([*SHAPES[::2], *LARGER], TRACES):
        arguments = problem(shape, layout, nonlinearity, trace)
        oracle = run("reference", *arguments, torch.float64)
        for_each = distances(place, arguments, precision, oracle)
        ours, eagers = (total + sum(x) for total, x in zip((ours, eagers), for_each, strict=True))
    assert ours <= 2 * eagers
    if precision != "tf32" or place.device == "cuda":  # a CPU's float32 has no other way
        assert ours > 1e-4, "not rounded at all"


@pytest.mark.parametrize(("place", "shape"), every(NEAR, [(shape,) for shape in LARGER]))
def test_larger_nets_in_full_precision(place, shape):
    ours = eagers = 0.0
    for trace in TRACES:
        arguments = problem(shape, "squash", "softplus", trace)
        oracle = run("reference", *arguments, torch.float64)
        for_each = distances(place, arguments, "full", oracle)
        ours, eagers = (total + sum(x) for total, x in zip((ours, eagers), for_each, strict=True))
    assert ours <= 2 * eagers


@pytest.mark.parametrize(("place", "shape"), every(NEAR, [(shape,) for shape in LARGER[:3]]))
def test_kernels_chosen_by_their_speed(place, shape):
    torch.use_deterministic_algorithms(False)
    arguments = problem(shape, "squash", "softplus", "exact")
    oracle = run("reference", *arguments, torch.float64)
    ours, eagers = distances(place, arguments, "full", oracle)
    assert sum(ours) <= 2 * sum(eagers)


@pytest.mark.parametrize(("place", "trace"), every(cases=[(trace,) for trace in TRACES]))
def test_no_rows(place, trace):
    there = moved(place.device, problem((0, 3, (7,)), "squash", "tanh", trace))
    results = run(place.engine, *there, torch.float32)
    assert results[0].shape == (1, 0, 3) and results[1].shape == (1, 0)
    assert all((gradient == 0).all() for gradient in results[3:])


@pytest.mark.parametrize(("place", "trace"), every(cases=[(trace,) for trace in TRACES]))
def test_extreme_preactivations_stay_finite(place, trace):
    for nonlinearity in ("softplus", "tanh", "elu", "swish"):
        leaves, probes, statics = problem((5, 3, (7,)), "ignore", nonlinearity, trace)
        leaves[4] = torch.full_like(leaves[4], 1000.0)
        leaves[4][:, ::2] *= -1
        oracle = run("reference", leaves, probes, statics, torch.float64)
        there = moved(place.device, (leaves, probes, statics))
        got = run(place.engine, *there, torch.float32)
        for actual, expected in zip(got, oracle, strict=True):
            assert distance(actual, expected) < 4 * torch.finfo(torch.float32).eps * 1000


@pytest.mark.parametrize("nonlinearity", GPU_NONLINEARITIES)
@pytest.mark.parametrize("place", every())
def test_nan_comes_through_its_row_and_no_other(place, nonlinearity):
    arguments = problem((20, 3, (7,)), "squash", nonlinearity, "none")
    arguments[0][0][1, 0] = float("nan")
    z, *_ = run(place.engine, *moved(place.device, arguments), torch.float32)
    rows = torch.arange(20, device=z.device)
    assert z[0, rows == 1].isnan().all() and z[0, rows != 1].isfinite().all()
