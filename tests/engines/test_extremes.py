"""Integers at the ends of their range: an answer or an error, never memory that is not the op's."""

import itertools

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.core.trace import trace_table
from mvae_fast.engines import cpp as ops
from mvae_fast.engines.enums import NONLINEARITIES
from mvae_fast.nets.fields import field_of
from tests.oracles import autograd_trace, gradients, random_net

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

EXTREMES = (-(2**63), -1, 0, 1, 2, 2**31, 2**32, 2**62, 2**63 - 1)
STEPS, DIM, HIDDEN = 4, 3, 5


def method():
    return {
        "nonlinearity": NONLINEARITIES["tanh"],
        "residual": False,
        "exact": True,
        "a": [0.0],
        "b": [1.0],
        "outputs": [2, STEPS],
        "checkpoint_every": 1,
        "penalties": 0,
        "operands": 0,
    }


def field():
    return field_of(random_net((HIDDEN,), DIM, "ignore", "tanh"), torch.zeros(STEPS).double())


def problem(tensors, layout, batch):
    head = {"z": torch.randn(batch, DIM).double(), "h": torch.full((STEPS,), 0.1).double()}
    given = {"probes": None, "tensors": [x.detach() for x in tensors]}
    return {**head, **given, "widths": [DIM, HIDDEN, DIM], "layout": layout, **method()}


def coefficients(batch=7):
    """Layout: form, time, F, layers (weight, offset, ld and columns of three numbers), context."""
    given = field()
    layout = [0, len(given.tensors), 2, *given.structure.numbers, -1, -1]
    return problem((*given.tensors, given.time), layout, batch)


def tables(batch=7):
    """Layout: form, weight, gate, bias, trace, second, context."""
    with torch.no_grad():
        given = field().tables()
        trace = trace_table(given)
    return problem((given.weight, given.bias, trace), [1, 0, -1, 1, 2, -1, -1, -1], batch)


FORMS = {"coefficients": coefficients, "tables": tables}


def run(arguments):
    """The forward, then the backward of ones: all results, or the error."""
    arguments = list(arguments.values())
    try:
        *results, states = torch.ops.mvae_fast.solve.default(*arguments, True)
        ones = [torch.ones_like(x) for x in results]
        grads = torch.ops.mvae_fast.solve_backward.default(*ones, states, *arguments, True)
    except RuntimeError as error:
        return error
    return [*results, *(x for grad in grads for x in (grad if isinstance(grad, list) else [grad]))]


def same(actual, expected):
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("every", [2, 3, STEPS, STEPS + 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1])
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("capability", ops.capabilities())
@pytest.mark.slow
def test_any_number_of_steps_between_checkpoints(name, every, capability):
    best = ops.capability()
    ops.set_capability(capability)
    try:
        arguments = FORMS[name]()
        expected = run(arguments)
        same(run(arguments | {"checkpoint_every": every}), expected)
    finally:
        ops.set_capability(best)


VALID = {
    "nonlinearity": range(7),
    "checkpoint_every": range(1, 2**63),
    "penalties": range(8),  # 8 wants probes
    "operands": (0,),  # the others want float32, or a GPU
}
SCALARS = [
    (name, argument)
    for name, make in FORMS.items()
    for argument, value in make().items()
    if isinstance(value, int) and not isinstance(value, bool)
]


@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize(("name", "argument"), SCALARS)
@pytest.mark.slow
def test_every_integer(name, argument, value):
    arguments = FORMS[name]() | {argument: value}
    result = run(arguments)
    if value in VALID[argument]:
        assert not isinstance(result, RuntimeError), result
        assert all(x.isfinite().all() for x in result)
    else:
        assert isinstance(result, RuntimeError)
        assert argument in str(result)


@pytest.mark.parametrize("batch", [7, 0])
@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize("name", FORMS)
def test_every_integer_of_the_lists(name, value, batch):
    for argument in ("widths", "outputs"):
        arguments = FORMS[name](batch)
        for place in range(len(arguments[argument])):
            changed = list(arguments[argument])
            changed[place] = value
            result = run(arguments | {argument: changed})
            fits = argument == "outputs" or name == "coefficients"  # which are pieces of tensors
            if fits and place == (argument == "widths") and value in (1, 2):
                assert not isinstance(result, RuntimeError)
            else:
                assert isinstance(result, RuntimeError), (argument, changed)


# Products and sums of these are 0, or small, in 64 bits.
WRAPPING = [
    [2**32, 2**32, 2**32],
    [2**62, 2**62, 2**62, 2**62, 2**62],
    [2**62, 4, 2**62],
    [2**63 - 1, 1, 2**63 - 1],
    [2**33, 2**31, 2**33],
    [3, 2**62, 3],
    [3, 2**63 - 1, 3],
]


@pytest.mark.parametrize("widths", WRAPPING)
@pytest.mark.parametrize("name", FORMS)
def test_widths_whose_products_wrap(name, widths):
    """A state without rows may have them, and tables of no columns fit the wrapped products."""
    arguments = FORMS[name]() | {"widths": widths, "z": torch.empty(0, widths[0]).double()}
    layers, weights = len(widths) - 1, sum(a * b for a, b in itertools.pairwise(widths))
    if name == "tables":
        weight, bias = weights % 2**64, sum(widths[1:]) % 2**64
        if max(weight, bias) > 2**20:
            weight = bias = 0
        tensors = [torch.ones(1, weight).double(), torch.ones(1, bias).double()]
        arguments |= {"tensors": tensors, "layout": [1, 0, -1, 1, -1, -1, *[-1] * layers]}
    else:
        tensors = [torch.ones(0).double(), torch.zeros(STEPS).double()]
        each = [[0, 0, before, 0, 0, 1, *[-1, 0, 0] * 5] for before in widths[:-1]]
        arguments |= {"tensors": tensors, "layout": [0, 1, 2, *sum(each, []), *[-1] * layers]}
    assert isinstance(run(arguments | {"exact": False}), RuntimeError)


@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize("name", FORMS)
def test_every_integer_of_the_layout(name, value):
    """An index, an offset or a distance of any size is refused, or within its tensor."""
    arguments = FORMS[name]()
    for place, before in enumerate(arguments["layout"]):
        changed = list(arguments["layout"])
        changed[place] = value
        result = run(arguments | {"layout": changed})
        if value == before:
            assert not isinstance(result, RuntimeError)
        elif abs(value) > 2:
            # Below 0 an index is that of nothing; of what is not there, the rest is not read.
            unread = name == "coefficients" and not isinstance(result, RuntimeError)
            assert isinstance(result, RuntimeError) or value < 0 or unread, (place, value)
        if not isinstance(result, RuntimeError):
            assert len(result) == 5 + len(arguments["tensors"])
    for changed in (arguments["layout"][:-1], [*arguments["layout"], value], [value], []):
        assert isinstance(run(arguments | {"layout": changed}), RuntimeError)


@pytest.mark.parametrize("probes", [2**31, 2**58, 2**62, 2**63 - 1])
def test_more_probes_than_memory(probes):
    """Of a state without rows: they take no memory, their products' scratch would."""
    arguments = tables(0) | {"exact": False}
    arguments["layout"][4] = -1  # no table of the trace
    result = run(arguments | {"probes": torch.empty(probes, 0, DIM).double()})
    assert isinstance(result, RuntimeError)
    assert "memory" in str(result)


def test_peak():
    for repeats in EXTREMES:
        if repeats in (0, 1, 2):
            assert ops.peak(repeats) == repeats * ops.peak(1)
        else:
            with pytest.raises(RuntimeError, match="repeats"):
                ops.peak(repeats)


@pytest.mark.parametrize("every", [3, 2**31, 2**62, 2**63 - 1, 2**63, 10**30])
@pytest.mark.parametrize("layer_type", ["squash", "blend"])
@pytest.mark.parametrize("solver", ["euler", "rk4"])
@pytest.mark.slow
def test_flow_with_any_checkpoint_every(every, layer_type, solver):
    net = random_net((HIDDEN,), DIM, layer_type, "tanh")
    z = torch.randn(5, DIM).double().requires_grad_()

    def values(checkpoint_every):
        flow = FastCNF(
            ODEfunc(net), solver=solver, n_steps=4, trace="exact", checkpoint_every=checkpoint_every
        ).double()
        results = flow(z, z[:, :1])
        return [*results, *gradients(results, [z, *net.parameters()])]

    expected = values(1)
    same(values(every), expected)
    if solver == "euler":  # and by hand: the last step's share of the log-density's change
        z_t, logp = z, z[:, :1]
        for step in range(4):
            velocity, trace = autograd_trace(net, torch.tensor(step / 4).double(), z_t)
            z_t, logp = z_t + velocity / 4, logp - trace.unsqueeze(1) / 4
        same(expected[:2], (z_t, logp))
