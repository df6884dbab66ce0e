"""Integers at the ends of their range: an answer or an error, never memory that is not the op's."""

import itertools

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.core.tables import build_tables
from mvae_fast.core.trace import trace_table
from mvae_fast.engines import cpp as ops
from mvae_fast.engines import table_ops
from tests.oracles import autograd_trace, gradients, random_net

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

EXTREMES = (-(2**63), -1, 0, 1, 2, 2**31, 2**32, 2**62, 2**63 - 1)
STEPS, DIM, HIDDEN = 4, 3, 5


def common():
    return {
        "widths": [DIM, HIDDEN, DIM],
        "nonlinearity": table_ops.nonlinearity_number("tanh"),
        "residual": False,
        "a": [0.0],
        "b": [1.0],
        "outputs": [2, STEPS],
        "checkpoint_every": 1,
        "penalties": 0,
        "operands": 0,
    }


def net_arguments(batch=7):
    net = random_net((HIDDEN,), DIM, "ignore", "tanh")
    layers = [layer._layer for layer in net.layers]
    parameters = [x.detach() for layer in layers for x in (layer.weight, layer.bias)]
    head = {"z": torch.randn(batch, DIM).double(), "t": torch.zeros(STEPS).double()}
    head |= {"h": torch.full((STEPS,), 0.1).double(), "parameters": parameters, "probes": None}
    settings = common()
    widths = settings.pop("widths")
    return {**head, "widths": widths, "layer": 0, "exact": True, **settings}


def table_arguments(batch=7):
    net = random_net((HIDDEN,), DIM, "ignore", "tanh")
    with torch.no_grad():
        tables = build_tables(net, torch.zeros(STEPS).double())
        trace = trace_table(tables)
    tensors = {"z": torch.randn(batch, DIM).double(), "h": torch.full((STEPS,), 0.1).double()}
    tensors |= {"weight": tables.weight, "gate": None, "bias": tables.bias, "trace": trace}
    return {**tensors, "second": None, "probes": None, **common()}


def hidden_arguments(batch=7):
    random = torch.randn
    tensors = {"u": random(batch, HIDDEN), "h": random(STEPS), "matrix": random(HIDDEN, HIDDEN)}
    tensors |= {"gate": None, "bias": random(1, HIDDEN), "drift": random(1, HIDDEN)}
    return {**tensors, "trace": None, "coefficients": None, "nonlinearity": 1}


OPS = {
    "integrate": table_arguments,
    "integrate_net": net_arguments,
    "integrate_hidden": hidden_arguments,
}


def run(name, arguments):
    """The forward, then the backward of ones: all results, or the error."""
    operators = torch.ops.mvae_fast
    arguments = list(arguments.values())
    try:
        *results, states = getattr(operators, name).default(*arguments, True)
        ones = [torch.ones_like(x) for x in results]
        rest = arguments[1:]
        extra = () if name == "integrate_hidden" else (True,)
        backward = getattr(operators, f"{name}_backward").default
        grads = backward(*ones, arguments[0], states, *rest, *extra)
    except RuntimeError as error:
        return error
    return [*results, *(x for grad in grads for x in (grad if isinstance(grad, list) else [grad]))]


def same(actual, expected):
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("every", [2, 3, STEPS, STEPS + 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1])
@pytest.mark.parametrize("name", ["integrate", "integrate_net"])
@pytest.mark.parametrize("capability", ops.capabilities())
def test_any_number_of_steps_between_checkpoints(name, every, capability):
    best = ops.capability()
    ops.set_capability(capability)
    try:
        arguments = OPS[name]()
        expected = run(name, arguments)
        same(run(name, arguments | {"checkpoint_every": every}), expected)
    finally:
        ops.set_capability(best)


VALID = {
    "nonlinearity": range(7),
    "layer": (0,),  # the others have more tensors
    "checkpoint_every": range(1, 2**63),
    "penalties": range(8),  # 8 wants probes
    "operands": (0,),  # the others want float32, or a GPU
}
SCALARS = [
    (name, argument)
    for name, make in OPS.items()
    for argument, value in make().items()
    if isinstance(value, int) and not isinstance(value, bool)
]


@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize(("name", "argument"), SCALARS)
def test_every_integer(name, argument, value):
    arguments = OPS[name]() | {argument: value}
    result = run(name, arguments)
    if value in VALID[argument]:
        assert not isinstance(result, RuntimeError), result
        assert all(x.isfinite().all() for x in result)
    else:
        assert isinstance(result, RuntimeError)
        if not (argument == "layer" and 0 <= value < 5):  # whose tensors do not fit then
            assert argument in str(result)


@pytest.mark.parametrize("batch", [7, 0])
@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize("name", ["integrate", "integrate_net"])
def test_every_integer_of_the_lists(name, value, batch):
    for argument in ("widths", "outputs"):
        arguments = OPS[name](batch)
        for place in range(len(arguments[argument])):
            changed = list(arguments[argument])
            changed[place] = value
            result = run(name, arguments | {argument: changed})
            if argument == "outputs" and place == 0 and value in (1, 2):
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
@pytest.mark.parametrize("name", ["integrate", "integrate_net"])
def test_widths_whose_products_wrap(name, widths):
    """A state without rows may have them, and tables of no columns fit the wrapped products."""
    arguments = OPS[name]() | {"widths": widths, "z": torch.empty(0, widths[0]).double()}
    layers, weights = len(widths) - 1, sum(a * b for a, b in itertools.pairwise(widths))
    if name == "integrate":
        weight, bias = weights % 2**64, sum(widths[1:]) % 2**64
        if max(weight, bias) > 2**20:
            weight = bias = 0
        tables = {"weight": torch.ones(1, weight).double(), "bias": torch.ones(1, bias).double()}
        arguments |= {**tables, "trace": None}
    else:
        arguments |= {"parameters": [torch.ones(0).double()] * (2 * layers), "exact": False}
    assert isinstance(run(name, arguments), RuntimeError)


@pytest.mark.parametrize("probes", [2**31, 2**58, 2**62, 2**63 - 1])
def test_more_probes_than_memory(probes):
    """Of a state without rows: they take no memory, their products' scratch would."""
    arguments = table_arguments(0) | {"trace": None}
    result = run("integrate", arguments | {"probes": torch.empty(probes, 0, DIM).double()})
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
