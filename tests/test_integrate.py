"""Every engine against the float64 reference on raw tables: values and every gradient."""

import itertools

import pytest
import torch

from mvae_fast.core import reference
from mvae_fast.core.problem import Method, Problem
from mvae_fast.core.tables import Tables
from mvae_fast.core.trace import exact_probes, trace_table
from mvae_fast.integrate import integrate
from tests.oracles import NONLINEARITIES, distance, engines_on, gradients, pairwise

# Rows of (weight, gate, bias): what the layer types produce. 0 stands for no gate, "S" for one row
# a step.
LAYOUTS = {
    "ignore": (1, 0, 1),
    "ignore+swish": (1, 1, 1),
    "concat": (1, 0, "S"),
    "squash": (1, "S", "S"),
    "blend": ("S", 0, "S"),
    "blend+swish": ("S", 1, "S"),
    "all": ("S", "S", "S"),
}
STEPS = 3
LEAVES = ("z", "h", "weight", "gate", "bias", "trace")
# (B, D, hidden widths): no hidden layer to four, sizes off every vector and tile width.
SHAPES = [
    (5, 3, ()),
    (1, 1, (1,)),
    (17, 3, (33,)),
    (33, 17, (5,)),
    (3, 2, (17, 33)),
    (17, 5, (1, 3)),
    (5, 3, (4, 17, 3)),
    (3, 17, (3, 5, 4, 7)),
]
TRACES = ("none", "exact", "hutchinson")


def problem(shape, layout, nonlinearity, trace, residual=False, steps=STEPS):
    """Float64 leaves ``z, h, tables..., trace table`` and a function of them and of an engine."""
    batch, dim, hidden = shape
    widths = (dim, *hidden, dim)
    rows = [steps if n == "S" else n for n in LAYOUTS[layout]]
    outputs = sum(widths[1:])

    def noise(*size):
        return torch.randn(*size, dtype=torch.float64)

    weight = torch.cat(
        [
            noise(rows[0], m_out * m_in) * 0.7 / m_in**0.5
            for m_in, m_out in itertools.pairwise(widths)
        ],
        dim=1,
    )
    gate = noise(rows[1], outputs).sigmoid() + 0.3 if rows[1] else None
    bias = noise(rows[2], outputs) * 0.5
    tables = Tables(weight, gate, bias, widths, nonlinearity, residual)
    table = trace_table(tables) if trace == "exact" else None
    # The square of a square of ...: only small numbers stay in range through four layers.
    scale = 0.25 if nonlinearity == "square" else 1.0
    bias = bias * scale
    z, h = noise(batch, dim) * scale, 0.1 + 0.2 * torch.rand(steps, dtype=torch.float64)
    h[-1] *= -1
    if trace == "hutchinson":
        probes = noise(2, batch, dim)
    elif trace == "exact" and table is None:
        probes = exact_probes(z)
    else:
        probes = None
    return [z, h, weight, gate, bias, table], probes, (widths, nonlinearity, residual)


def run(engine, leaves, probes, statics, dtype, outputs=None, precision="full"):
    """Values and gradients for every leaf, all in ``dtype``."""
    leaves = [None if x is None else x.detach().to(dtype).requires_grad_() for x in leaves]
    z, h, weight, gate, bias, table = leaves
    results = integrate(
        z,
        h,
        Tables(weight, gate, bias, *statics),
        trace=table,
        probes=None if probes is None else probes.to(dtype),
        outputs=outputs,
        precision=precision,
        engine=engine,
    )[:2]
    return [*results, *gradients(results, [x for x in leaves if x is not None])]


@pytest.mark.parametrize(
    ("shape", "layout", "nonlinearity"), pairwise(SHAPES, list(LAYOUTS), NONLINEARITIES)
)
@pytest.mark.parametrize("compiled", [name for name in engines_on("cpu") if name != "reference"])
def test_values_and_gradients(capability, compiled, shape, layout, nonlinearity):
    errors = {}
    for trace, residual in itertools.product(TRACES, (False, True)):
        arguments = problem(shape, layout, nonlinearity, trace, residual)
        names = [
            "z",
            "logp",
            *(f"d{n}" for n, x in zip(LEAVES, arguments[0], strict=True) if x is not None),
        ]
        oracle = run("reference", *arguments, torch.float64)
        eager32 = run("reference", *arguments, torch.float32)
        got64 = run(compiled, *arguments, torch.float64)
        got32 = run(compiled, *arguments, torch.float32)
        for name, exact, eager, double, single in zip(
            names, oracle, eager32, got64, got32, strict=True
        ):
            assert single.dtype == torch.float32 and single.shape == exact.shape
            # In float64 an engine differs from the oracle in the order of its sums only.
            assert distance(double, exact) < 1e-13, f"{name}, {trace}, residual={residual}"
            errors.setdefault(name, []).append((distance(single, exact), distance(eager, exact)))
    # float32: at most twice the error of eager PyTorch in the same dtype, on the mean of the six
    # problems, because a single small tensor may come out exact by luck. For the same reason the
    # floor: one rounding of the result.
    floor = torch.finfo(torch.float32).eps
    for name, pairs in errors.items():
        ours, eagers = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        assert ours <= 2 * eagers + floor, f"{name}: {ours:.2e} against {eagers:.2e}"


@pytest.mark.parametrize("trace", TRACES)
def test_intermediate_outputs(engine, trace):
    arguments = problem((5, 3, (7,)), "squash", "tanh", trace, steps=4)
    outputs = (1, 2, 4)
    oracle = run("reference", *arguments, torch.float64, outputs)
    got = run(engine, *arguments, torch.float64, outputs)
    assert got[0].shape == (3, 5, 3) and got[1].shape == (3, 5)
    for actual, expected in zip(got, oracle, strict=True):
        assert distance(actual, expected) < 1e-13
    leaves, probes, statics = arguments
    z, h, weight, gate, bias, table = leaves
    for position, steps in enumerate(outputs):
        shorter = Tables(weight, gate[:steps], bias[:steps], *statics)
        part = None if table is None else table[:steps]
        z_out, logp_out, _ = integrate(
            z, h[:steps], shorter, trace=part, probes=probes, engine=engine
        )
        assert distance(got[0][position], z_out[0]) < 1e-14
        assert distance(got[1][position], logp_out[0]) < 1e-14


@pytest.mark.parametrize("shape", [(129, 33, (65,)), (64, 8, (129, 31))])
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_more_rows_than_a_tile(engine, shape, trace, n_threads, threads):
    threads(n_threads)
    arguments = problem(shape, "squash", "softplus", trace)
    oracle = run("reference", *arguments, torch.float64)
    for actual, expected in zip(run(engine, *arguments, torch.float64), oracle, strict=True):
        assert distance(actual, expected) < 1e-13


@pytest.mark.parametrize("trace", TRACES)
def test_extreme_preactivations_stay_finite(engine, trace):
    # Softplus and sigmoid at +-1000: exp overflows in a careless formula.
    for nonlinearity in ("softplus", "tanh", "elu", "swish"):
        leaves, probes, statics = problem((5, 3, (7,)), "ignore", nonlinearity, trace)
        leaves[4] = torch.full_like(leaves[4], 1000.0)
        leaves[4][:, ::2] *= -1
        for dtype in (torch.float32, torch.float64):
            oracle = run("reference", leaves, probes, statics, torch.float64)
            for actual, expected in zip(
                run(engine, leaves, probes, statics, dtype), oracle, strict=True
            ):
                assert torch.isfinite(expected).all()
                assert distance(actual, expected) < 4 * torch.finfo(dtype).eps * 1000


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("shape", [(2, 2, ()), (2, 2, (3,)), (2, 2, (2, 1)), (1, 2, (1, 2, 2))])
def test_gradcheck(engine, shape, trace):
    leaves, probes, statics = problem(shape, "all", "tanh", trace, steps=2)
    present = [x is not None for x in leaves]
    inputs = [x.requires_grad_() for x in leaves if x is not None]

    def function(*tensors):
        given = iter(tensors)
        z, h, weight, gate, bias, table = (next(given) if p else None for p in present)
        tables = Tables(weight, gate, bias, *statics)
        solution = integrate(
            z, h, tables, trace=table, probes=probes, outputs=(1, 2), engine=engine
        )
        return solution[:2]

    assert torch.autograd.gradcheck(function, inputs)
    if engine == "reference":
        assert torch.autograd.gradgradcheck(function, inputs)


def test_gradients_of_some_inputs_only(engine):
    leaves, probes, statics = problem((5, 3, (7,)), "squash", "tanh", "exact")
    full = run(engine, leaves, probes, statics, torch.float64)[2:]
    for wanted in range(6):
        given = [x.clone().requires_grad_(i == wanted) for i, x in enumerate(leaves)]
        z, h, weight, gate, bias, table = given
        tables = Tables(weight, gate, bias, *statics)
        results = integrate(z, h, tables, trace=table, engine=engine)[:2]
        (gradient,) = gradients(results, [given[wanted]])
        torch.testing.assert_close(gradient, full[wanted], rtol=1e-13, atol=1e-13)


def test_gradients_of_one_output_only(engine):
    leaves, probes, statics = problem((5, 3, (7,)), "squash", "tanh", "exact")
    for which in range(2):
        got, expected = (
            gradients(
                (
                    integrate(
                        *(x.requires_grad_() for x in leaves[:2]),
                        Tables(*leaves[2:5], *statics),
                        trace=leaves[5],
                        engine=name,
                    )[which],
                ),
                leaves[:2],
            )
            for name in (engine, "reference")
        )
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trace", TRACES)
def test_no_rows(engine, trace):
    leaves, probes, statics = problem((0, 3, (7,)), "squash", "tanh", trace)
    results = run(engine, leaves, probes, statics, torch.float32)
    assert results[0].shape == (1, 0, 3) and results[1].shape == (1, 0)
    assert all((gradient == 0).all() for gradient in results[3:])


def test_any_layout_of_the_inputs(engine):
    leaves, probes, statics = problem((5, 4, (7,)), "squash", "tanh", "hutchinson")
    oracle = run(engine, leaves, probes, statics, torch.float64)
    strided = [None if x is None else x.mT.contiguous().mT if x.ndim == 2 else x for x in leaves]
    strided[1] = torch.stack((leaves[1], leaves[1]), 1)[:, 0]
    transposed = probes.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not strided[0].is_contiguous() and not strided[1].is_contiguous()
    for actual, expected in zip(
        run(engine, strided, transposed, statics, torch.float64), oracle, strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)


def test_expanded_state_and_shared_probes(engine):
    leaves, _, statics = problem((6, 4, (7,)), "squash", "tanh", "none")
    leaves[0] = leaves[0][:1].expand(6, 4)
    probes = torch.randn(2, 1, 4, dtype=torch.float64).expand(2, 6, 4)
    oracle = run("reference", leaves, probes, statics, torch.float64)
    got = run(engine, leaves, probes, statics, torch.float64)
    for actual, expected in zip(got, oracle, strict=True):
        assert distance(actual, expected) < 1e-13


def test_same_bits_every_time(engine, threads):
    threads(2)
    arguments = problem((129, 17, (33,)), "squash", "softplus", "exact")
    first, second = (run(engine, *arguments, torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def bad(**changes):
    leaves, probes, statics = problem((5, 3, (7,)), "squash", "tanh", "none")
    names = dict(zip(LEAVES, leaves, strict=True))
    names |= dict(zip(("widths", "nonlinearity", "residual"), statics, strict=True))
    names |= {"probes": probes, "outputs": None} | changes
    tables = Tables(
        names["weight"],
        names["gate"],
        names["bias"],
        names["widths"],
        names["nonlinearity"],
        names["residual"],
    )
    return (names["z"], names["h"], tables), {
        key: names[key] for key in ("trace", "probes", "outputs")
    }


F64 = {"dtype": torch.float64}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z": torch.zeros(5, 4, **F64)}, r"z: got shape \(5, 4\), expected \(B, 3\)"),
        ({"z": torch.zeros(5, 3, dtype=torch.int64)}, "z: got dtype torch.int64"),
        ({"h": torch.zeros(0, **F64)}, r"h: got shape \(0,\), expected \(S,\) with S >= 1"),
        ({"h": torch.zeros(3)}, "h: got dtype torch.float32, expected that of z, torch.float64"),
        ({"weight": torch.zeros(2, 42, **F64)}, r"weight: got shape \(2, 42\), expected \(1 or 3"),
        ({"bias": torch.zeros(1, 9, **F64)}, r"bias: got shape \(1, 9\), expected \(1 or 3, 10\)"),
        ({"gate": torch.zeros(10, **F64)}, r"gate: got shape \(10,\)"),
        ({"gate": torch.zeros(1, 10, **F64, device="meta")}, "gate: got device meta"),
        ({"trace": torch.zeros(1, 8, **F64)}, r"trace: got shape \(1, 8\), expected \(1 or 3, 7\)"),
        ({"probes": torch.zeros(5, 3, **F64)}, r"probes: got shape \(5, 3\), expected \(K, 5, 3\)"),
        ({"probes": torch.zeros(1, 5, 3, **F64, requires_grad=True)}, "probes: got a tensor that"),
        (
            {"trace": torch.zeros(1, 7, **F64), "probes": torch.zeros(1, 5, 3, **F64)},
            "trace and probes: got both",
        ),
        ({"nonlinearity": "gelu"}, "nonlinearity: got 'gelu'"),
        ({"widths": (3,)}, r"widths: got \(3,\)"),
        ({"widths": (3, 7, 4)}, r"widths: got \(3, 7, 4\)"),
        ({"outputs": (2,)}, r"outputs: got \(2,\), expected ascending step counts ending in 3"),
        ({"outputs": (2, 1, 3)}, r"outputs: got \(2, 1, 3\)"),
        ({"outputs": (0, 3)}, r"outputs: got \(0, 3\)"),
        ({"outputs": ()}, r"outputs: got \(\)"),
    ],
)
def test_bad_arguments_are_named(engine, changes, message):
    positional, keywords = bad(**changes)
    with pytest.raises(ValueError, match=message):
        integrate(*positional, **keywords, engine=engine)


def test_no_closed_form_for_deep_nets(engine):
    leaves, _, statics = problem((5, 3, (4, 4, 4)), "ignore", "tanh", "none")
    z, h, weight, gate, bias, _ = leaves
    with pytest.raises(ValueError, match="trace: got a table for 4 layers, expected at most 3"):
        integrate(
            z,
            h,
            Tables(weight, gate, bias, *statics),
            trace=torch.zeros(1, 1, **F64),
            engine=engine,
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reference_takes_half_precision(dtype):
    leaves, probes, statics = problem((5, 3, (7,)), "squash", "softplus", "exact")
    asked = Problem(*leaves[:2], Tables(*leaves[2:5], *statics), Method((STEPS,)), trace=leaves[5])
    oracle = reference.integrate(asked)[:2]
    got = run("reference", leaves, probes, statics, dtype)
    assert got[0].dtype == dtype
    assert distance(got[0], oracle[0]) < 8 * torch.finfo(dtype).eps
