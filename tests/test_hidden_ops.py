"""The ops of hidden space as PyTorch sees them: opcheck, torch.compile, refusals."""

import pytest
import torch

from mvae_fast import hidden_ops, hidden_space, ops, table_ops
from mvae_fast.tables import Tables
from tests.test_integrate import TRACES, problem

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

NAMES = ("u", "h", "matrix", "gate", "bias", "drift", "trace", "coefficients")


def op_arguments(batch, m, steps, trace, varying=False, requires_grad=False):
    """Arguments by name; ``varying``: every table has a row for each step."""
    rows = steps if varying else 1
    tensors = {
        "u": torch.randn(batch, m),
        "h": torch.full((steps,), 0.1),
        "matrix": torch.randn(m, m) / m**0.5,
        "gate": torch.rand(rows, m) if trace != "none" else None,
        "bias": torch.randn(rows, m),
        "drift": torch.randn(rows, m),
        "trace": torch.randn(rows, m) if trace == "exact" else None,
        "coefficients": torch.randn(batch, m) if trace == "hutchinson" else None,
    }
    return {
        name: None if x is None else x.requires_grad_(requires_grad) for name, x in tensors.items()
    }


TANH = table_ops.nonlinearity_number("tanh")


def integrate_hidden(arguments, save=True, nonlinearity=TANH):
    op = torch.ops.mvae_fast.integrate_hidden.default
    return op(*arguments.values(), nonlinearity, save)


@pytest.mark.parametrize(("batch", "m", "steps"), [(5, 7, 3), (1, 1, 1), (33, 17, 2)])
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(batch, m, steps, trace, requires_grad):
    arguments = op_arguments(batch, m, steps, trace, trace == "exact", requires_grad)
    for save in (False, True) if not requires_grad else (True,):
        torch.library.opcheck(
            torch.ops.mvae_fast.integrate_hidden.default, (*arguments.values(), TANH, save)
        )
    plain = {name: None if x is None else x.detach() for name, x in arguments.items()}
    total, logp, states = integrate_hidden(plain)
    u, *rest = arguments.values()
    torch.library.opcheck(
        torch.ops.mvae_fast.integrate_hidden_backward.default,
        (torch.ones_like(total), torch.ones_like(logp), u, states, *rest, TANH),
        # Its backward refuses by design: only what does not differentiate it applies.
        test_utils=("test_schema", "test_faketensor")
        if requires_grad
        else ("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("trace", TRACES)
def test_gradcheck(trace, varying):
    # Gates, and drifts of one row, vary as no caller's do yet.
    arguments = op_arguments(3, 5, 4, trace, varying)
    present = [name for name, x in arguments.items() if x is not None]
    inputs = [arguments[name].double().requires_grad_() for name in present]

    def function(*tensors):
        given = dict(zip(present, tensors, strict=True))
        return hidden_ops.integrate_hidden(*(given.get(name) for name in NAMES), "softplus")

    assert torch.autograd.gradcheck(function, inputs)


def test_needs_saved_states_for_backward():
    total, _, _ = integrate_hidden(op_arguments(5, 7, 3, "exact", requires_grad=True), save=False)
    with pytest.raises(RuntimeError, match="backward needs the states of save=True"):
        total.sum().backward()


def test_refuses_double_backward():
    arguments = op_arguments(5, 7, 3, "exact", requires_grad=True)
    total, logp, states = integrate_hidden(arguments)
    (first,) = torch.autograd.grad(total.square().sum(), arguments["u"], create_graph=True)
    with pytest.raises(RuntimeError, match=r"the compiled engines have first derivatives only"):
        first.sum().backward()
    u, *rest = arguments.values()
    gradients = torch.ops.mvae_fast.integrate_hidden_backward.default(
        total.detach(), logp.detach(), u, states, *rest, TANH
    )
    with pytest.raises(RuntimeError, match=r"the compiled engines have first derivatives only"):
        gradients[0].sum().backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"u": torch.zeros(5)}, r"u has shape \(5\)"),
        ({"u": torch.zeros(5, 7, dtype=torch.bfloat16)}, "u must be float32 or float64"),
        ({"u": torch.zeros(5, 0)}, "u has no columns"),
        ({"h": torch.zeros(0)}, "h has no steps"),
        ({"matrix": torch.zeros(7, 3)}, r"matrix has shape \(7, 3\), expected \(7, 7\)"),
        ({"matrix": torch.zeros(7, 14)[:, ::2]}, "matrix must be contiguous"),
        ({"gate": torch.zeros(2, 7)}, "gate has 2 rows, expected 1 or 3"),
        ({"bias": torch.zeros(1, 8)}, r"bias has shape \(1, 8\)"),
        ({"drift": torch.zeros(1, 7, dtype=torch.float64)}, "drift must have the dtype"),
        ({"coefficients": torch.zeros(5, 7)}, "both trace and coefficients are given"),
        ({"trace": None, "coefficients": torch.zeros(4, 7)}, r"coefficients has shape \(4, 7\)"),
    ],
)
def test_checks_its_arguments(changes, message):
    arguments = op_arguments(5, 7, 3, "exact") | changes
    with pytest.raises(RuntimeError, match=message):
        integrate_hidden(arguments)


def test_backward_checks_its_arguments():
    arguments = op_arguments(5, 7, 3, "exact")
    total, logp, states = integrate_hidden(arguments)
    u, *rest = arguments.values()
    backward = torch.ops.mvae_fast.integrate_hidden_backward.default
    with pytest.raises(RuntimeError, match=r"states has shape \(1, 5, 7\), expected \(2, 5, 7\)"):
        backward(total, logp, u, states[1:], *rest, TANH)
    with pytest.raises(RuntimeError, match=r"grad_total has shape \(4, 7\)"):
        backward(total[1:], logp, u, states, *rest, TANH)
    with pytest.raises(RuntimeError, match="nonlinearity is 7"):
        backward(total, logp, u, states, *rest, 7)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_compile_traces_it(trace):
    leaves, probes, statics = problem((5, 3, (7,)), "ignore+swish", "tanh", trace)
    z, h, weight, gate, bias, table = leaves
    tables = Tables(weight, gate, bias, *statics)

    def loss(z):
        z_out, logp_out, _ = hidden_space.integrate(z, h, tables, table, probes)
        return z_out.square().sum() + logp_out.sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, expected = (
        torch.autograd.grad(function(x), x)
        for function, x in ((compiled, z.clone().requires_grad_()), (loss, z.requires_grad_()))
    )
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
