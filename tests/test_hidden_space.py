"""Hidden-space integration against the float64 reference: values, gradients, and when it pays."""

import itertools

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet, hidden_space, ops
from mvae_fast.integrate import integrate
from mvae_fast.problem import Method
from mvae_fast.tableaus import TABLEAUS
from mvae_fast.tables import Tables
from tests.oracles import NONLINEARITIES, distance, gradients, pairwise
from tests.test_integrate import LEAVES, STEPS, TRACES, problem, run

needs_cpp = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

LAYOUTS = ("ignore", "ignore+swish", "concat")
# Sizes off every vector and tile width.
SHAPES = [(1, 1, (1,)), (5, 3, (17,)), (33, 17, (5,)), (3, 129, (33,)), (7, 40, (129,))]
# As for the engines, although the products are rearranged, too: 2e-14 was the largest distance seen
# up to D = 784, m = 256 and 20 steps.
TOLERANCE = 1e-13


def net(weight=1, gate=0, bias=1, widths=(3, 7, 3), residual=False):
    """Tables of zeros with these numbers of rows."""
    features = sum(widths[1:])
    weights = sum(m_in * m_out for m_in, m_out in itertools.pairwise(widths))
    return Tables(
        torch.zeros(weight, weights),
        torch.zeros(gate, features) if gate else None,
        torch.zeros(bias, features),
        widths,
        "tanh",
        residual,
    )


@pytest.mark.parametrize("tables", [net(), net(bias=STEPS), net(gate=1), net(gate=1, bias=STEPS)])
def test_applies(tables):
    assert hidden_space.applies(tables, Method((STEPS,)))


@pytest.mark.parametrize(
    "tables",
    [
        net(weight=STEPS),
        net(gate=STEPS),
        net(residual=True),
        net(widths=(3, 3)),
        net(widths=(3, 7, 5, 3)),
    ],
)
def test_does_not_apply_to_these_nets(tables):
    assert not hidden_space.applies(tables, Method((STEPS,)))


@pytest.mark.parametrize(
    "options",
    [
        {"outputs": (1, STEPS)},
        {"checkpoint_every": 2},
        {"penalties": ("kinetic_energy",)},
        {"precision": "bf16"},
        *({"tableau": tableau} for name, tableau in TABLEAUS.items() if name != "euler"),
    ],
)
def test_does_not_apply_to_these_methods(options):
    assert not hidden_space.applies(net(), Method(**{"outputs": (STEPS,), **options}))


def products(dim, hidden, batch, steps, training):
    """Multiply-adds of both ways, product by product: in hidden space, in state space."""
    first_u, last_p = (batch * dim * hidden,) * 2
    build = dim * hidden**2 + steps * dim * hidden
    each_step = (steps - 1) * batch * hidden**2
    state = steps * batch * dim * hidden
    if not training:
        return first_u + last_p + build + each_step, 2 * state
    # Each product has two in its backward; state space also repeats its first one there.
    return 3 * (first_u + last_p + build + each_step), 7 * state


@pytest.mark.parametrize("training", [False, True])
def test_costs_less(training):
    sizes = itertools.product((1, 8, 64, 784), (1, 16, 256, 1024), (1, 33, 256, 4096), (1, 2, 20))
    answers = set()
    for dim, hidden, batch, steps in sizes:
        hidden_space_cost, state_space_cost = products(dim, hidden, batch, steps, training)
        answer = hidden_space.costs_less(dim, hidden, batch, steps, training)
        answers.add(answer)
        if answer:
            assert hidden_space_cost < state_space_cost
        elif state_space_cost > 1e8:  # where a fixed cost does not matter
            assert hidden_space_cost * 1.3 > state_space_cost
    assert answers == {False, True}


def test_costs_less_of_known_cases():
    # Many rows and steps: m^2 against 2 D m, or 3 m^2 against 7 D m with a backward, and 15 %.
    assert hidden_space.costs_less(63, 100, 10**6, 10**4, training=False)
    assert not hidden_space.costs_less(62, 100, 10**6, 10**4, training=False)
    assert hidden_space.costs_less(54, 100, 10**6, 10**4, training=True)
    assert not hidden_space.costs_less(53, 100, 10**6, 10**4, training=True)
    # One step has two products in either space, and A comes on top.
    assert not hidden_space.costs_less(784, 256, 256, 1, training=False)
    # A alone is dearer than one row's steps.
    assert not hidden_space.costs_less(784, 256, 1, 20, training=True)
    # A toy is done before PyTorch has made its calls.
    assert not hidden_space.costs_less(2, 2, 100, 8, training=True)


def run_hidden(leaves, probes, statics, dtype):
    """Values and gradients for every leaf: what `tests.test_integrate.run` gives of an engine."""
    leaves = [None if x is None else x.detach().to(dtype).requires_grad_() for x in leaves]
    z, h, weight, gate, bias, table = leaves
    results = hidden_space.integrate(
        z,
        h,
        Tables(weight, gate, bias, *statics),
        table,
        None if probes is None else probes.to(dtype),
    )[:2]
    return [*results, *gradients(results, [x for x in leaves if x is not None])]


def names_of(leaves):
    return ["z", "logp", *(f"d{n}" for n, x in zip(LEAVES, leaves, strict=True) if x is not None)]


def check(shape, layout, nonlinearity, steps, float32=True):
    errors = {}
    for trace, n_steps in itertools.product(TRACES, steps):
        arguments = problem(shape, layout, nonlinearity, trace, steps=n_steps)
        oracle = run("reference", *arguments, torch.float64)
        eager32 = run("reference", *arguments, torch.float32)
        got64 = run_hidden(*arguments, torch.float64)
        got32 = run_hidden(*arguments, torch.float32)
        for name, exact, eager, double, single in zip(
            names_of(arguments[0]), oracle, eager32, got64, got32, strict=True
        ):
            assert single.dtype == torch.float32 and single.shape == exact.shape
            assert distance(double, exact) < TOLERANCE, f"{name}, {trace}"
            errors.setdefault(name, []).append((distance(single, exact), distance(eager, exact)))
    # float32: as in tests/test_integrate.py, at most twice the error of eager PyTorch on the mean
    # of the problems, or one rounding of the result.
    floor = torch.finfo(torch.float32).eps
    for name, pairs in errors.items() if float32 else ():
        ours, eagers = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        assert ours <= 2 * eagers + floor, f"{name}: {ours:.2e} against {eagers:.2e}"


@needs_cpp
@pytest.mark.parametrize(
    ("shape", "layout", "nonlinearity"), pairwise(SHAPES, LAYOUTS, NONLINEARITIES)
)
def test_values_and_gradients(capability, shape, layout, nonlinearity):
    # FastCNF does not take hidden space on the baseline, which is short of this (see fused.py).
    check(shape, layout, nonlinearity, steps=(1, STEPS), float32=capability != "baseline")


@needs_cpp
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_every_instruction_set(capability, nonlinearity):
    assert ops.capability() == capability
    check((33, 17, (21,)), "ignore+swish", nonlinearity, steps=(STEPS,))


@needs_cpp
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_more_rows_than_a_tile(trace, n_threads, threads):
    threads(n_threads)
    arguments = problem((129, 33, (65,)), "ignore+swish", "softplus", trace)
    oracle = run("reference", *arguments, torch.float64)
    for actual, expected in zip(run_hidden(*arguments, torch.float64), oracle, strict=True):
        assert distance(actual, expected) < TOLERANCE


@needs_cpp
@pytest.mark.parametrize("trace", TRACES)
def test_no_rows(trace):
    results = run_hidden(*problem((0, 3, (7,)), "ignore+swish", "tanh", trace), torch.float32)
    assert results[0].shape == (1, 0, 3) and results[1].shape == (1, 0)
    assert all((gradient == 0).all() for gradient in results[3:])


@needs_cpp
def test_any_layout_of_the_inputs():
    leaves, probes, statics = problem((5, 4, (7,)), "concat", "tanh", "hutchinson")
    oracle = run_hidden(leaves, probes, statics, torch.float64)
    strided = [None if x is None else x.mT.contiguous().mT if x.ndim == 2 else x for x in leaves]
    strided[1] = torch.stack((leaves[1], leaves[1]), 1)[:, 0]
    transposed = probes.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not strided[0].is_contiguous() and not strided[1].is_contiguous()
    for actual, expected in zip(
        run_hidden(strided, transposed, statics, torch.float64), oracle, strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)


@needs_cpp
def test_expanded_state_and_shared_probes():
    leaves, _, statics = problem((6, 4, (7,)), "concat", "tanh", "none")
    leaves[0] = leaves[0][:1].expand(6, 4)
    probes = torch.randn(2, 1, 4, dtype=torch.float64).expand(2, 6, 4)
    oracle = run("reference", leaves, probes, statics, torch.float64)
    got = run_hidden(leaves, probes, statics, torch.float64)
    for actual, expected in zip(got, oracle, strict=True):
        assert distance(actual, expected) < TOLERANCE


@needs_cpp
@pytest.mark.parametrize("trace", TRACES)
def test_gradients_of_some_inputs_only(trace):
    leaves, probes, statics = problem((5, 3, (7,)), "ignore+swish", "tanh", trace)
    full = iter(run_hidden(leaves, probes, statics, torch.float64)[2:])
    for wanted, leaf in enumerate(leaves):
        if leaf is None:
            continue
        given = [
            None if x is None else x.clone().requires_grad_(i == wanted)
            for i, x in enumerate(leaves)
        ]
        z, h, weight, gate, bias, table = given
        tables = Tables(weight, gate, bias, *statics)
        results = hidden_space.integrate(z, h, tables, table, probes)[:2]
        (gradient,) = gradients(results, [given[wanted]])
        torch.testing.assert_close(gradient, next(full), rtol=1e-13, atol=1e-13)


@needs_cpp
@pytest.mark.parametrize("which", [0, 1])
def test_gradients_of_one_output_only(which):
    leaves, _, statics = problem((5, 3, (7,)), "concat", "tanh", "exact")
    z, h, weight, gate, bias, table = (None if x is None else x.requires_grad_() for x in leaves)
    tables = Tables(weight, gate, bias, *statics)
    got, expected = (
        gradients((solution[which],), [z, h, weight, bias, table])
        for solution in (
            hidden_space.integrate(z, h, tables, table),
            integrate(z, h, tables, trace=table, engine="reference"),
        )
    )
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@needs_cpp
@pytest.mark.parametrize("n_threads", [1, 2])
def test_same_bits_every_time(n_threads, threads):
    threads(n_threads)
    arguments = problem((129, 17, (65,)), "concat", "softplus", "exact")
    first, second = (run_hidden(*arguments, torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_cpp
@pytest.mark.parametrize("trace", TRACES)
def test_extreme_preactivations_stay_finite(trace):
    # Softplus and sigmoid at +-1000: exp overflows in a careless formula.
    for nonlinearity in ("softplus", "tanh", "elu", "swish"):
        leaves, probes, statics = problem((5, 3, (7,)), "ignore", nonlinearity, trace)
        leaves[4] = torch.full_like(leaves[4], 1000.0)
        leaves[4][:, ::2] *= -1
        for dtype in (torch.float32, torch.float64):
            oracle = run("reference", leaves, probes, statics, torch.float64)
            for actual, expected in zip(
                run_hidden(leaves, probes, statics, dtype), oracle, strict=True
            ):
                assert torch.isfinite(actual).all()
                assert distance(actual, expected) < 4 * torch.finfo(dtype).eps * 1000


@needs_cpp
def test_states_are_saved_only_where_a_gradient_is_wanted():
    leaves, _, statics = problem((5, 3, (7,)), "concat", "tanh", "exact")
    tables = Tables(*leaves[2:5], *statics)

    def saved(z):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(tuple(x.shape)), lambda x: x
        ):
            hidden_space.integrate(z, leaves[1], tables, leaves[5])
        return sizes

    states = (STEPS - 1, 5, 7)
    assert states in saved(leaves[0].requires_grad_())
    assert saved(leaves[0].detach()) == []
    with torch.no_grad():
        assert saved(leaves[0]) == []


@needs_cpp
def test_refuses_double_backward():
    leaves, _, statics = problem((5, 3, (7,)), "concat", "tanh", "exact")
    z, h, weight, gate, bias, table = leaves
    z.requires_grad_()
    z_out, *_ = hidden_space.integrate(z, h, Tables(weight, gate, bias, *statics), table)
    (first,) = torch.autograd.grad(z_out.square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match=r"the compiled engines have first derivatives only"):
        first.sum().backward()


@needs_cpp
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_flow_takes_the_cheaper_way(capability, trace, monkeypatch):
    calls = []
    whole = hidden_space.integrate
    monkeypatch.setattr(hidden_space, "integrate", lambda *a: calls.append(1) or whole(*a))
    net = ODEnet((60,), (200,), layer_type="concat")
    z = torch.randn(96, 200, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(96, 200, dtype=torch.float64) if trace == "hutchinson" else None

    def run_flow(engine):
        flow = FastCNF(ODEfunc(net), trace=trace, engine=engine, train_T=True).double()
        results = flow(z, z[:, 0], probes=noise)
        return [*results, *gradients(results, [z, *flow.parameters()])]

    for ours, expected in zip(run_flow("cpp"), run_flow("reference"), strict=True):
        assert distance(ours, expected) < 1e-12
    assert len(calls) == (capability != "baseline")
