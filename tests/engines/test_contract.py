"""What every engine owes: values and gradients of every kind of problem, against the float64
reference; which itself is held to the formulas in test_reference.py.

All engines for GPUs are here as well: the kernels of the CUDA one compiled for the CPU, Triton's in
its interpreter. These take a share of the cases, since both are slow.
"""

import pytest
import torch

from mvae_fast import engines
from mvae_fast.core.problem import PENALTIES
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.engines import cpp
from mvae_fast.engines.enums import FIRST_NONLINEARITIES
from tests.contract import (
    COEFFICIENTS,
    FORMS,
    LARGER,
    MODES,
    NONLINEARITIES,
    SHAPES,
    TABLES,
    TRACES,
    Case,
    assert_near,
    cases_covering,
    converted,
    eager,
    leaves_of,
    oracle,
    replace,
    run,
    taken,
    totals,
)
from tests.oracles import distance, gradients

CPP = [f"cpp:{name}" for name in cpp.capabilities()]
SLOW = ("emulated", "triton")
EPSILON = torch.finfo(torch.float32).eps

CASES = cases_covering(
    shape=[*SHAPES, *LARGER],
    form=FORMS,
    nonlinearity=NONLINEARITIES,
    context=["", "all", "some"],
    solver=list(TABLEAUS),
    every=[1, 2, 5],
    outputs=[None, (1, 3)],
)


def slow_but(fast):
    return () if fast else pytest.mark.slow


def entrants(cases, shares):
    """Parameters (contestant, case). The best instruction set takes all, the others share them; the
    engines for GPUs, which know no context, take every n-th of the rest."""
    plain = [
        case for case in cases if not case.context and case.nonlinearity in FIRST_NONLINEARITIES
    ]
    others = max(1, len(CPP) - 1)
    taken = {name: cases[i - 1 :: others] if i else cases for i, name in enumerate(CPP)}
    taken |= {name: plain[::n] for name, n in shares.items()}
    return [
        pytest.param(name, case, id=f"{name}-{i}", marks=slow_but(name == CPP[0] and i % 10 == 0))
        for name, some in taken.items()
        for i, case in enumerate(some)
    ]


def cases(cases, **shares):
    return pytest.mark.parametrize(
        ("contestant", "case"), entrants(cases, shares), indirect=["contestant"]
    )


def each(*names):
    """Every contestant, of whom the best instruction set is fast."""
    return pytest.mark.parametrize(
        "contestant",
        [pytest.param(name, id=name, marks=slow_but(name == CPP[0])) for name in names],
        indirect=True,
    )


everyone, on_one_set = each(*CPP, *SLOW, "reference"), each(*CPP[:1], *SLOW, "reference")


def test_every_pair_of_choices_occurs():
    for form in FORMS:
        for shape in (*SHAPES, *LARGER):
            assert any(case.form == form and case.shape == shape for case in CASES)
        for context in ("", "all", "some"):
            assert any(case.form == form and case.context == context for case in CASES)
    assert len(CASES) < 1.1 * len(FORMS) * len(SHAPES + LARGER)


@cases(CASES, emulated=2)
def test_values_and_gradients(contestant, case):
    modes = [(trace, (case.seed + i) % 2 == 0) for i, trace in enumerate(TRACES)]
    if contestant in SLOW:
        modes = [MODES[case.seed % len(MODES)]]
    errors = {}
    for trace, residual in modes:
        asked = replace(case, trace=trace, residual=residual)
        exact = oracle(asked)
        # In float64 an engine differs from the oracle in the order of its sums only.
        assert_near(run(contestant, asked.problem()), exact, note=asked)
        single = run(contestant, asked.problem(), torch.float32)
        for name, x in exact.items():
            assert single[name].dtype == torch.float32 and single[name].shape == x.shape
            pair = distance(single[name], x), distance(eager(asked)[name], x)
            errors.setdefault(name, []).append(pair)
    if contestant in SLOW:  # of one problem a single tensor may come out exact by luck
        errors = {"all": [pair for pairs in errors.values() for pair in pairs]}
    # float32: at most twice the error of eager PyTorch in the same dtype, on the mean of the three
    # problems, because a single small tensor may come out exact by luck. For the same reason the
    # floor: one rounding of the result.
    for name, pairs in errors.items():
        ours, eagers = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        assert ours <= 2 * eagers + EPSILON, f"{name}: {ours:.2e} against {eagers:.2e}, {case}"


# A Runge-Kutta method takes Triton's interpreter many seconds: tests/kernels has a few of them.
SIMPLE = cases_covering(
    shape=SHAPES,
    form=[*TABLES, "mixed"],
    nonlinearity=FIRST_NONLINEARITIES,
    trace=TRACES,
    residual=[False, True],
    every=[1, 2],
)


@pytest.mark.parametrize("contestant", ["triton"], indirect=True)
@pytest.mark.parametrize("case", SIMPLE, ids=range(len(SIMPLE)))
@pytest.mark.slow
def test_values_and_gradients_in_an_interpreter(contestant, case):
    assert_near(run(contestant, case.problem()), oracle(case), note=case)


PENALISED = cases_covering(
    shape=SHAPES,
    form=["tables 101", "tables 1EE", "tables EEE", "concat", "mixed", "features"],
    penalties=[PENALTIES, *((name,) for name in PENALTIES), PENALTIES[::3]],
    context=["", "all"],
    solver=["euler", "heun3", "rk4"],
    trace=TRACES,
    residual=[False, True],
    nonlinearity=["tanh", "softplus"],
    outputs=[None, (1, 3)],
)


@cases(PENALISED, emulated=1, triton=4)
def test_penalties(contestant, case):
    exact = oracle(case)
    assert exact["penalties"].shape[1:] == (len(case.penalties), case.shape[0])
    got = run(contestant, case.problem())
    assert_near(got, exact, note=case)
    if contestant != "triton":
        single = run(contestant, case.problem(), torch.float32)
        ours, eagers = totals(single, eager(case), exact)
        assert ours <= 2 * eagers + EPSILON, case
    if case.trace is None:
        assert not got["logp"].any()


SECOND = [
    Case((37, 5, (19,)), form, name, "exact", context=context, log_det="second_order", seed=seed)
    for seed, (form, name, context) in enumerate(
        (form, name, context)
        for form in (*TABLES, "concat", "squash", "mixed", "features")
        for name, context in (("softplus", ""), ("tanh", "all"))
    )
]


@cases(SECOND, emulated=1, triton=4)
def test_second_order(contestant, case):
    assert_near(run(contestant, case.problem()), oracle(case), note=case)


# Of all shapes and traces together.
ROUNDED = [
    ("tables 101", "softplus", ""),
    ("tables 101", "tanh", "some"),
    ("tables 1EE", "tanh", ""),
    ("tables 1EE", "softplus", "all"),
    ("tables EEE", "softplus", ""),
    ("tables EEE", "tanh", "all"),
    ("concatsquash", "tanh", ""),
    ("pieces", "softplus", "all"),
]


def precisions(name):
    # Triton's interpreter computes garbage in bfloat16, which takes the same path as float16.
    slow = {"emulated": ("bf16", "fp16"), "triton": ("fp16",)}
    return slow[name] if name in slow else engines.get("cpp").precisions[1:]


@pytest.mark.parametrize(
    ("contestant", "precision", "form", "nonlinearity", "context"),
    [
        (name, precision, *kind)
        for name in (*CPP, *SLOW)
        for precision in precisions(name)
        for kind in ROUNDED
        if not (name in SLOW and kind[2]) and not (name == "triton" and kind[1] == "softplus")
    ],
    indirect=["contestant"],
)
@pytest.mark.slow
def test_rounded_operands(contestant, precision, form, nonlinearity, context):
    """As near to the oracle as eager PyTorch under autocast, or nearer."""
    ours = eagers = 0.0
    rounded = taken(contestant, precision)
    shapes = [*SHAPES, (129, 33, (65,)), (64, 8, (129, 31))]
    for shape in SHAPES[2:6] if contestant == "triton" else shapes:
        for trace in TRACES:
            case = Case(shape, form, nonlinearity, trace, context=context)
            got = run(contestant, case.problem(), torch.float32, precision=precision)
            assert all(x.dtype == torch.float32 for x in got.values())
            pair = totals(got, eager(case, rounded), oracle(case))
            ours, eagers = ours + pair[0], eagers + pair[1]
    assert {"bf16": 1e-3, "fp16": 1e-4, "full": 0}[rounded] < ours <= 2 * eagers


@everyone
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("form", ["tables 1EE", "squash"])
def test_intermediate_outputs(contestant, form, trace):
    case = Case((5, 3, (7,)), form, trace=trace, steps=4, outputs=(1, 2, 4))
    got = run(contestant, case.problem())
    assert got["z"].shape == (3, 5, 3) and got["logp"].shape == (3, 5)
    assert_near(got, oracle(case))
    problem = case.problem()
    for position, steps in enumerate(case.outputs):
        field = problem.field
        if form == "squash":
            shorter = replace(field, time=field.time[:steps])
        else:
            shorter = replace(field, gate=field.gate[:steps], bias=field.bias[:steps])
        part = replace(problem, h=problem.h[:steps], field=shorter, outputs=(steps,))
        solution = engines.solve(contestant, part)
        assert distance(got["z"][position], solution.z[0]) < 1e-14
        assert distance(got["logp"][position], solution.logp[0]) < 1e-14


# The reference is the oracle: it has tiles of no kind.
@pytest.mark.parametrize("contestant", CPP[:1], indirect=True)
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("shape", "form", "context"),
    [
        ((129, 33, (65,)), "tables 1EE", ""),
        ((129, 33, (65,)), "squash", "all"),
        ((129, 33, (70, 33)), "concat", "some"),
        ((64, 8, (129, 31)), "tables 1EE", "all"),
        ((64, 8, (129, 31)), "mixed", ""),
        ((65, 5, (9, 8, 7)), "tables EEE", "all"),
    ],
)
@pytest.mark.slow
def test_more_rows_than_a_tile(contestant, shape, form, context, n_threads, threads):
    threads(n_threads)
    for trace in TRACES:
        case = Case(shape, form, "softplus", trace, context=context)
        assert_near(run(contestant, case.problem()), oracle(case), note=case)


@everyone
@pytest.mark.parametrize("trace", TRACES)
def test_extreme_preactivations_stay_finite(contestant, trace):
    # Softplus and sigmoid at +-1000: exp overflows in a careless formula.
    for nonlinearity in ("softplus", "tanh", "elu", "silu"):
        problem = Case((5, 3, (7,)), "tables 101", nonlinearity, trace).problem()
        bias = torch.full_like(problem.field.bias, 1000.0)
        bias[:, ::2] *= -1
        problem = replace(problem, field=replace(problem.field, bias=bias))
        exact = run("reference", problem)
        assert all(torch.isfinite(x).all() for x in exact.values())
        for dtype in (torch.float32, torch.float64):
            tolerance = 4 * torch.finfo(dtype).eps * 1000
            assert_near(run(contestant, problem, dtype), exact, tolerance)


@everyone
@pytest.mark.parametrize("trace", TRACES)
def test_extreme_gates_stay_finite(contestant, trace):
    problem = Case((5, 3, (7,)), "concatsquash", trace=trace).problem()
    tensors = list(problem.field.tensors)
    for layer in problem.field.structure.layers:
        for column in layer.gate:
            x = tensors[column.tensor]
            tensors[column.tensor] = torch.linspace(-1000, 1000, x.numel(), dtype=x.dtype)
    problem = replace(problem, field=replace(problem.field, tensors=tuple(tensors)))
    exact = run("reference", problem)
    assert all(torch.isfinite(x).all() for x in exact.values())
    for dtype in (torch.float32, torch.float64):
        assert_near(run(contestant, problem, dtype), exact, 4 * torch.finfo(dtype).eps * 1000)


@on_one_set
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("shape", [(2, 2, ()), (2, 2, (3,)), (2, 2, (2, 1)), (1, 2, (1, 2, 2))])
def test_gradcheck(contestant, shape, trace):
    if contestant in SLOW and (shape[2] != (3,) or trace != "exact"):
        pytest.skip("one shape and trace: in the interpreter and the emulator it takes minutes")
    for form in ("tables EEE", "mixed"):
        context = "" if contestant in SLOW else "all"
        case = Case(shape, form, "tanh", trace, context=context, steps=2, outputs=(1, 2))
        inputs = [x.clone().requires_grad_() for x in leaves_of(case.problem()).values()]

        def function(*tensors, case=case):
            given = iter(tensors)
            problem = case.problem()
            leaves = {id(x): next(given) for x in leaves_of(problem).values()}
            problem = converted(problem, lambda x: leaves.get(id(x), x))
            return engines.solve(contestant, problem)[:2]

        # In the interpreter along one direction at random, else along each.
        assert torch.autograd.gradcheck(function, inputs, fast_mode=contestant == "triton")
        if contestant == "reference" and form == "tables EEE":
            assert torch.autograd.gradgradcheck(function, inputs)


@on_one_set
def test_gradcheck_of_penalties(contestant):
    case = Case((2, 3, (4, 3)), "tables EEE", "tanh", "exact", penalties=PENALTIES, steps=2)
    problem = case.problem()
    inputs = [x.clone().requires_grad_() for x in leaves_of(problem).values()]

    def function(*tensors):
        leaves = dict(zip(map(id, leaves_of(problem).values()), tensors, strict=True))
        return engines.solve(contestant, converted(problem, lambda x: leaves.get(id(x), x)))

    assert torch.autograd.gradcheck(function, inputs, fast_mode=contestant == "triton")


@pytest.mark.parametrize("contestant", [*CPP, "emulated", "reference"], indirect=True)
@pytest.mark.parametrize("form", ["tables 1EE", "concatsquash"])
@pytest.mark.slow
def test_gradients_of_some_inputs_only(contestant, form):
    context = "" if contestant in SLOW else "some"
    problem = Case((5, 3, (7, 5)), form, trace="exact", context=context).problem()
    full = run(contestant, problem)
    for name in leaves_of(problem):
        got = run(contestant, problem, wanted=[name])
        torch.testing.assert_close(got[f"d {name}"], full[f"d {name}"], rtol=1e-13, atol=1e-13)


@everyone
def test_gradients_of_one_output_only(contestant):
    problem = Case((5, 3, (7,)), trace="exact", penalties=PENALTIES).problem()
    for which in range(3):
        got, expected = (
            gradients((engines.solve(name, given)[which],), [given.z, given.h])
            for name in (contestant, "reference")
            for given in [converted(problem, lambda x: x.clone())]
            if all(x.requires_grad_() is x for x in (given.z, given.h))
        )
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@everyone
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("form", ["tables 1EE", "concatsquash"])
def test_no_rows(contestant, form, trace):
    context = "" if contestant in SLOW else "all"
    problem = Case((0, 3, (7,)), form, trace=trace, context=context, penalties=PENALTIES).problem()
    results = run(contestant, problem, torch.float32)
    assert results["z"].shape == (1, 0, 3) and results["logp"].shape == (1, 0)
    assert results["penalties"].shape == (1, 4, 0)
    grads = [x for name, x in results.items() if name.startswith("d ")]
    assert len(grads) == len(leaves_of(problem)) and not any(x.any() for x in grads)


@everyone
@pytest.mark.parametrize("form", ["tables 1EE", "concatsquash"])
def test_any_layout_of_the_inputs(contestant, form):
    context = "" if contestant in SLOW else "all"
    problem = Case((5, 4, (7,)), form, trace="hutchinson", context=context).problem()

    def strided(x):
        if x.ndim == 1:
            return torch.stack((x, x), 1)[:, 0]
        axes = list(reversed(range(x.ndim)))
        return x.permute(axes).contiguous().permute(axes)

    other = converted(problem, strided)
    assert not any(x.is_contiguous() for x in (other.z, other.h, other.probes))
    expected = run(contestant, problem)
    for name, got in run(contestant, other).items():
        torch.testing.assert_close(got, expected[name], rtol=1e-13, atol=1e-13)


@everyone
def test_expanded_state_and_shared_probes(contestant):
    problem = Case((6, 4, (7,))).problem()
    shared = torch.randn(2, 1, 4, dtype=torch.float64).expand(2, 6, 4)
    problem = replace(problem, z=problem.z[:1].expand(6, 4), probes=shared, trace="hutchinson")
    assert_near(run(contestant, problem), run("reference", problem))


@everyone
@pytest.mark.parametrize("form", ["tables 1EE", "squash"])
def test_same_bits_every_time(contestant, form, threads):
    threads(2)
    shape = (37, 17, (33,)) if contestant == "triton" else (129, 17, (33, 20))
    context = "" if contestant in SLOW else "all"
    problem = Case(shape, form, "softplus", "exact", context=context).problem()
    first = run(contestant, problem, torch.float32)
    torch.use_deterministic_algorithms(True)  # changes nothing
    try:
        second = run(contestant, problem, torch.float32)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first[name], second[name]) for name in first)


@everyone
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_nan_comes_through_its_row_and_no_other(contestant, nonlinearity):
    if contestant == "triton":
        pytest.skip("the interpreter's maximum takes NaN for a number: see tests/gpu")
    if contestant in SLOW and nonlinearity not in FIRST_NONLINEARITIES:
        pytest.skip("the engines for GPUs have FFJORD's only")
    problem = Case((20, 3, (7,)), nonlinearity=nonlinearity).problem()
    problem.z[1, 0] = float("nan")
    z = run(contestant, problem, torch.float32)["z"]
    rows = torch.arange(20)
    assert z[0, rows == 1].isnan().all() and z[0, rows != 1].isfinite().all()


@each(*CPP[:1], *SLOW)
def test_what_it_has_not_is_refused_with_the_remedy(contestant):
    def refused(match, **settings):
        with pytest.raises(ValueError, match=f"engine: '{contestant}' {match}; remedy: "):
            engines.solve(contestant, Case(**{"trace": "exact", **settings}).problem())

    exact = ", 'exact'" if contestant.startswith("cpp") else ""
    known = f"has log_det='trace'{exact}, and 'second_order' for one hidden layer"
    if not exact:
        refused(known, log_det="exact")
    refused(known, shape=(5, 3, (7, 4)), log_det="second_order")
    problem = Case(form="mixed", trace="exact").problem()
    rows = torch.zeros(5, 7, dtype=torch.float64), None
    gated = replace(problem, field=replace(problem.field, gate_context=rows))
    known = "has no gates by row" if contestant == "cpp" else "has no context"
    with pytest.raises(ValueError, match=known):
        engines.solve(contestant, gated)
    assert engines.choose("auto", gated) == "reference"
    if contestant in SLOW:
        refused("has no context", context="some")


def test_every_form_of_coefficients_is_among_the_cases():
    assert {case.form for case in CASES} == {*TABLES, *COEFFICIENTS}
