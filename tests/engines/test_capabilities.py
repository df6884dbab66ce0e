"""The kernels of every instruction set that this processor has, each forced in turn."""

import pytest
import torch

from mvae_fast import engines
from mvae_fast.core.problem import Problem
from mvae_fast.core.tables import Tables
from mvae_fast.engines import cpp as ops
from tests.contract import NONLINEARITIES

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")


def test_the_best_one_is_the_default_and_others_are_refused():
    assert ops.capability() == ops.capabilities()[0]
    assert ops.capabilities()[-1] == "baseline"
    with pytest.raises(RuntimeError, match=r"capability is 'avx1024', expected one of: .*baseline"):
        ops.set_capability("avx1024")


def test_each_is_forced_in_turn(capability):
    """tests/engines/test_contract.py has their values and gradients."""
    assert ops.capability() == capability
    assert torch.ops.mvae_fast.cpu_capabilities("").split() == [capability, *ops.capabilities()]


def value_and_slope(a, nonlinearity):
    """phi(a) and phi'(a), by a net of one unit: (a, 0) <- (a, 0 + phi(a)). The unit takes both
    states, and the second one gets it: the trace is phi'(a + 0)."""
    weight = a.new_tensor([[1, 1, 0, 1]])
    tables = Tables(weight, None, a.new_zeros(1, 3), (2, 1, 2), nonlinearity)
    state = torch.stack((a, torch.zeros_like(a)), 1)
    solution = engines.solve("cpp", Problem(state, a.new_ones(1), tables, (1,), "exact"))
    return solution.z[0, :, 1], -solution.logp[0]


def normal_cdf(a):
    return 0.5 * torch.special.erfc(-(0.5**0.5) * a)


def exact_value_and_slope(a, nonlinearity):
    sigmoid = torch.sigmoid(a)
    near = a.clamp(-50, 50)  # of gelu: beyond, products of 0 and inf
    density = torch.exp(-near.square() / 2) / (2 * torch.pi) ** 0.5
    g = (8 / torch.pi) ** 0.5 * (near + 0.044715 * near**3)
    slope = (8 / torch.pi) ** 0.5 * (1 + 3 * 0.044715 * near.square())
    gate = torch.sigmoid(g)
    return {
        "softplus": (a.clamp(min=0) + torch.log1p(torch.exp(-a.abs())), sigmoid),
        "tanh": (torch.tanh(a), torch.cosh(a).reciprocal().square()),
        "relu": (a.clamp(min=0), (a > 0).double()),
        "elu": (torch.where(a > 0, a, torch.expm1(a)), torch.where(a > 0, 1.0, torch.exp(a))),
        "silu": (a * sigmoid, sigmoid * (1 + a * torch.sigmoid(-a))),
        "square": (a.square(), 2 * a),
        "identity": (a, torch.ones_like(a)),
        "gelu": (a * normal_cdf(near), normal_cdf(near) + near * density),
        "gelu_tanh": (a * gate, gate + near * slope * gate * torch.sigmoid(-g)),
        "selu": (
            SELU * torch.where(a > 0, a, SELU_ALPHA * torch.expm1(a)),
            SELU * torch.where(a > 0, 1.0, SELU_ALPHA * torch.exp(a)),
        ),
        "leaky_relu": (torch.where(a > 0, a, 0.01 * a), torch.where(a > 0, 1.0, 0.01).double()),
        "sigmoid": (sigmoid, sigmoid * torch.sigmoid(-a)),
        "sin": (torch.sin(a), torch.cos(a)),
    }[nonlinearity]


def ulps(got, exact):
    """Error in units of the last float32 place of the exact value; below the normals, of theirs."""
    exponent = torch.floor(torch.log2(exact.abs().clamp(min=2.0**-126)))
    return ((got.double() - exact).abs() / 2.0 ** (exponent - 23)).max().item()


SELU, SELU_ALPHA = 1.0507009873554804934193, 1.6732632423543772848170

# Bounds in ulps of phi and phi' in float32, over its whole range. Where phi' passes through zero
# (silu, gelu, sin) or is a difference (tanh: 1 - y^2), the bound is absolute, stated as a negative
# number.
BOUNDS = {
    "softplus": (4, 5),
    "tanh": (2.5, -3e-7),
    "relu": (0, 0),
    "elu": (2, 5),
    "silu": (6, -3e-7),
    "square": (0.5, 0),
    "identity": (0, 0),
    "gelu": (7.5, -3e-7),
    "gelu_tanh": (6, -3e-7),
    "selu": (3, 5),
    "leaky_relu": (1, 0.5),
    "sigmoid": (5, 5),
    "sin": (2, -3e-7),
}


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.slow
def test_accuracy_over_the_whole_range(capability, nonlinearity):
    largest = 18 if nonlinearity == "square" else 37  # its square is in range, too
    size = torch.cat(
        [
            torch.zeros(1),
            # From the smallest normal number on: those below are zero inside of a solve.
            torch.logspace(-37.9, largest, 50_000, dtype=torch.float64).float(),
            torch.linspace(0, 87, 100_001),
        ]
    )
    a = torch.cat([size, -size])
    for got, exact, bound in zip(
        value_and_slope(a, nonlinearity),
        exact_value_and_slope(a.double(), nonlinearity),
        BOUNDS[nonlinearity],
        strict=True,
    ):
        if bound < 0:
            assert (got.double() - exact).abs().max() <= -bound
        else:
            # Below the smallest normal number a result is zero. A factor gets there, and is zero,
            # while the product is larger still: sigmoid(a) of a's by 2^7, exp(a) of selu's by 2.
            larger = {"silu": 7, "gelu": 7, "gelu_tanh": 7, "selu": 1}.get(nonlinearity, 0)
            smallest = 2.0 ** (larger - 126)
            shown = exact.abs() >= smallest
            assert ulps(got[shown], exact[shown]) <= bound
            assert ((got[~shown].double() - exact[~shown]).abs() < smallest).all()


def test_a_sine_does_not_depend_on_its_neighbours(capability):
    # A large number, or none, sends a vector's neighbours through the same branch.
    a = torch.linspace(-30, 30, 333)
    alone = value_and_slope(a, "sin")
    for large in (1e5, 3e38, float("inf"), float("nan")):
        mixed = torch.stack((a, torch.full_like(a, large)), 1).flatten()
        for got, expected in zip(value_and_slope(mixed, "sin"), alone, strict=True):
            assert torch.equal(got[::2], expected)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_propagates_and_infinity_gives_the_limit(capability, nonlinearity, dtype):
    # Through the bias, in a net whose other numbers are 0 or 1: inf would meet 0 in a residual one.
    for a in (float("nan"), float("inf"), -float("inf")):
        bias = torch.tensor([[a, 0.0]], dtype=dtype)
        one = bias.new_ones(1)
        tables = Tables(bias.new_ones(1, 2), None, bias, (1, 1, 1), nonlinearity)
        z_out, *_ = engines.solve("cpp", Problem(bias.new_zeros(1, 1), one, tables, (1,)))
        limit = {"softplus": 0.0, "tanh": -1.0, "relu": 0.0, "elu": -1.0}
        limit |= {"gelu": 0.0, "gelu_tanh": 0.0, "sigmoid": 0.0}
        limit["selu"] = torch.tensor(-1.75809934084737685994, dtype=dtype).item()
        if a != a or nonlinearity == "sin":
            assert z_out.isnan().all()
        elif nonlinearity == "silu" and a < 0:
            assert z_out.isnan().all()  # inf * 0, as in eager PyTorch
        else:
            upper = {"tanh": 1.0, "sigmoid": 1.0}
            expected = (upper if a > 0 else limit).get(nonlinearity, a)
            expected = abs(a) if nonlinearity == "square" else expected
            assert z_out.item() == expected
