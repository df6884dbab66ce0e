"""What every engine owes: values and gradients of every kind of problem, against the float64
reference; which itself is held to the formulas in test_reference.py.

All engines for GPUs are here as well: the kernels of the CUDA one compiled for the CPU, Triton's in
its interpreter. These take a share of the cases, since both are slow.
"""

from dataclasses import replace

import pytest
import torch

from mvae_fast import engines
from mvae_fast.core.problem import PENALTIES
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.engines import cpp
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
    converted,
    covering,
    eager,
    leaves_of,
    oracle,
    run,
    totals,
)
from tests.oracles import distance, gradients

CPP = [f"cpp:{name}" for name in cpp.capabilities()]
SLOW = ("emulated", "triton")
EPSILON = torch.finfo(torch.float32).eps

CASES = [
    Case(**{"seed": seed, **choice})
    for seed, choice in enumerate(
        covering(
            shape=[*SHAPES, *LARGER],
            form=FORMS,
            nonlinearity=NONLINEARITIES,
            context=["", "all", "some"],
            solver=list(TABLEAUS),
            every=[1, 2, 5],
            outputs=[None, (1, 3)],
        )
    )
]


def entrants(cases, engines_=(*CPP, *SLOW), share=1):
    """Parameters (contestant, case); of the slow engines, which take no context, every ``share``-th
    of those that they take."""
    return [
        pytest.param(name, case, id=f"{name}-{i}")
        for name in engines_
        for i, case in enumerate(
            [x for x in cases if not x.context][::share] if name in SLOW else cases
        )
    ]


def cases(*arguments, **keywords):
    return pytest.mark.parametrize(
        ("contestant", "case"), entrants(*arguments, **keywords), indirect=["contestant"]
    )


everyone = pytest.mark.parametrize("contestant", [*CPP, *SLOW, "reference"], indirect=True)
on_one_set = pytest.mark.parametrize(
    "contestant", [*CPP[:1], *SLOW, "reference"], indirect=True, ids=lambda x: x.split(":")[0]
)


def test_every_pair_of_choices_occurs():
    for form in FORMS:
        for shape in (*SHAPES, *LARGER):
            assert any(case.form == form and case.shape == shape for case in CASES)
        for context in ("", "all", "some"):
            assert any(case.form == form and case.context == context for case in CASES)
    assert len(CASES) < 1.1 * len(FORMS) * len(SHAPES + LARGER)


@cases(CASES, share=4)
def test_values_and_gradients(contestant, case):
    modes = MODES
    if contestant in SLOW:
        modes = [MODES[case.seed % len(MODES)]]
    errors = {}
    for trace, residual in modes:
        asked = replace(case, trace=trace, residual=residual)
        exact = oracle(asked)
        # In float64 an engine differs from the oracle in the order of its sums only.
        assert_near(run(contestant, asked.problem()), exact, note=asked)
        if contestant == "triton":  # an interpreter's sums are not those of a GPU: see below
            continue
        single = run(contestant, asked.problem(), torch.float32)
        for name, x in exact.items():
            assert single[name].dtype == torch.float32 and single[name].shape == x.shape
            pair = distance(single[name], x), distance(eager(asked)[name], x)
            errors.setdefault(name, []).append(pair)
    if contestant in SLOW:  # of one problem a single tensor may come out exact by luck
        errors = {"all": [pair for pairs in errors.values() for pair in pairs]}
    # float32: at most twice the error of eager PyTorch in the same dtype, on the mean of the six
    # problems, because a single small tensor may come out exact by luck. For the same reason the
    # floor: one rounding of the result.
    for name, pairs in errors.items():
        ours, eagers = (sum(column) / max(1, len(pairs)) for column in zip(*pairs, strict=True))
        assert ours <= 2 * eagers + EPSILON, f"{name}: {ours:.2e} against {eagers:.2e}, {case}"
