"""Every GPU engine on raw tables against the float64 reference on the CPU: values and gradients.

An engine may be twice as far off as eager PyTorch on the same device in the same precision.
"""

import itertools

import pytest
import torch

from benchmarks.common.precision import operands, products
from mvae_fast.engines.enums import FIRST_NONLINEARITIES
from tests.contract import (
    SHAPES,
    TABLES,
    TRACES,
    Case,
    assert_near,
    converted,
    oracle,
    run,
)
from tests.gpu.places import CPU, GPU, NEAR, every
from tests.oracles import distance, pairwise

# Every other pair: each shape and each layout still meets several of the others.
CASES = pairwise(SHAPES, list(TABLES), FIRST_NONLINEARITIES)[::2]
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
ROUNDED = [("tables 1EE", "softplus"), ("tables EEE", "silu")]


def distances(place, case, precision):
    """Of the engine and of eager PyTorch, both on the place's device, tensor by tensor."""

    def there(engine, **settings):
        return run(engine, case.problem(), torch.float32, place.device, **settings)

    with products(precision):
        both = [
            there(engine, precision=operands(precision)) for engine in (place.engine, "reference")
        ]
        if precision == "tf32":
            # A small product of eager PyTorch may not be on tensor cores. float16 has as many bits.
            both.append(there("reference", precision="fp16"))
    for x in both[0].values():
        assert x.device.type == place.device and x.dtype == torch.float32
    exact = oracle(case)
    ours, *eagers = ({name: distance(got[name], x) for name, x in exact.items()} for got in both)
    return ours, {name: max(eager[name] for eager in eagers) for name in exact}


def total(place, cases, precision):
    """Of all cases and tensors together."""
    pairs = [distances(place, case, precision) for case in cases]
    return tuple(sum(sum(x.values()) for x in column) for column in zip(*pairs, strict=True))


@pytest.mark.parametrize(
    ("place", "shape", "form", "nonlinearity"), every(GPU, CASES) + every(CPU[:1], CASES[::5])
)
def test_full_precision(place, shape, form, nonlinearity):
    errors = {}
    for trace, residual in zip(TRACES, itertools.cycle((False, True))):
        case = Case(shape, form, nonlinearity, trace, residual)
        ours, eagers = distances(place, case, "full")
        for name, off in ours.items():
            errors.setdefault(name, []).append((off, eagers[name]))
        if place.has(dtype=torch.float64):
            double = run(place.engine, case.problem(), torch.float64, place.device)
            assert_near(double, oracle(case), note=case)
    # On the mean of the problems, and with a floor, because a small tensor may come out exact.
    floor = torch.finfo(torch.float32).eps
    for name, pairs in errors.items():
        ours, eagers = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        assert ours <= 2 * eagers + floor, f"{name}: {ours:.2e} against {eagers:.2e}"


@pytest.mark.parametrize("form", ["squash", "mixed", "pieces", "features"])
@pytest.mark.parametrize("place", every(NEAR))
def test_coefficients(place, form):
    cases = [Case(shape, form, "softplus", trace) for shape in SHAPES[2:7] for trace in TRACES]
    ours, eagers = total(place, cases, "full")
    assert ours <= 2 * eagers


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("place", "form", "nonlinearity"), every(GPU, ROUNDED) + every(CPU[:1], ROUNDED[:1])
)
def test_rounded_operands(place, form, nonlinearity, precision):
    place.require(precision)
    shapes = [*SHAPES[::2], *LARGER]
    cases = [Case(shape, form, nonlinearity, trace) for shape in shapes for trace in TRACES]
    ours, eagers = total(place, cases, precision)
    assert ours <= 2 * eagers
    if precision != "tf32" or place.device == "cuda":  # a CPU's float32 has no other way
        assert ours > 1e-4, "not rounded at all"


@pytest.mark.parametrize(("place", "shape"), every(NEAR, [(shape,) for shape in LARGER]))
def test_larger_nets_in_full_precision(place, shape):
    cases = [Case(shape, nonlinearity="softplus", trace=trace) for trace in TRACES]
    ours, eagers = total(place, cases, "full")
    assert ours <= 2 * eagers


@pytest.mark.parametrize(("place", "shape"), every(NEAR, [(shape,) for shape in LARGER[:3]]))
def test_kernels_chosen_by_their_speed(place, shape):
    torch.use_deterministic_algorithms(False)
    case = Case(shape, nonlinearity="softplus", trace="exact")
    ours, eagers = total(place, [case], "full")
    assert ours <= 2 * eagers


@pytest.mark.parametrize(("place", "trace"), every(cases=[(trace,) for trace in TRACES]))
def test_no_rows(place, trace):
    problem = Case((0, 3, (7,)), trace=trace).problem()
    results = run(place.engine, problem, torch.float32, place.device)
    assert results["z"].shape == (1, 0, 3) and results["logp"].shape == (1, 0)
    assert not any(x.any() for name, x in results.items() if name.startswith("d "))


@pytest.mark.parametrize(("place", "trace"), every(cases=[(trace,) for trace in TRACES]))
def test_extreme_preactivations_stay_finite(place, trace):
    for nonlinearity in ("softplus", "tanh", "elu", "silu"):
        problem = Case((5, 3, (7,)), "tables 101", nonlinearity, trace).problem()
        bias = torch.full_like(problem.field.bias, 1000.0)
        bias[:, ::2] *= -1
        given = id(problem.field.bias)
        problem = converted(
            problem, lambda x, bias=bias, given=given: bias if id(x) == given else x
        )
        got = run(place.engine, problem, torch.float32, place.device)
        assert_near(got, run("reference", problem), 4 * torch.finfo(torch.float32).eps * 1000)


@pytest.mark.parametrize("nonlinearity", FIRST_NONLINEARITIES)
@pytest.mark.parametrize("place", every())
def test_nan_comes_through_its_row_and_no_other(place, nonlinearity):
    problem = Case((20, 3, (7,)), nonlinearity=nonlinearity).problem()
    problem.z[1, 0] = float("nan")
    z = run(place.engine, problem, torch.float32, place.device)["z"]
    rows = torch.arange(20, device=z.device)
    assert z[0, rows == 1].isnan().all() and z[0, rows != 1].isfinite().all()
