"""The core as a function: what it is given, checked, and what it returns."""

import pytest
import torch

from mvae_fast import engines
from mvae_fast.core.problem import PENALTIES
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.integrate import integrate
from tests.contract import Case, replace, taken


@pytest.mark.parametrize("form", ["tables 1EE", "concatsquash"])
def test_it_is_the_solve_of_a_problem(engine, form):
    problem = Case(
        form=form, trace="hutchinson", solver="rk4", penalties=PENALTIES, outputs=(1, 3), every=2
    ).problem()
    got = integrate(
        problem.z,
        problem.h,
        problem.field,
        trace="hutchinson",
        probes=problem.probes,
        tableau=TABLEAUS["rk4"],
        penalties=PENALTIES,
        outputs=(1, 3),
        checkpoint_every=2,
        engine=engine,
    )
    for x, y in zip(got, engines.solve(engine, problem), strict=True):
        assert torch.equal(x, y)
    end = integrate(problem.z, problem.h, problem.field, tableau=TABLEAUS["rk4"], engine=engine)
    assert torch.equal(end.z[0], got.z[1]) and end.z.shape == (1, 5, 3)
    assert not end.logp.any() and end.penalties.shape == (1, 0, 5)


def test_log_det_and_precision(engine):
    problem = Case(trace="exact").problem()
    given = (problem.z.float(), problem.h.float())
    tables = replace(
        problem.field,
        **{name: getattr(problem.field, name).float() for name in ("weight", "gate", "bias")},
    )
    results = [
        integrate(*given, tables, trace="exact", engine=engine, **settings).logp
        for settings in ({}, {"log_det": "second_order"}, {"precision": "bf16"})
    ]
    changes = [(x - results[0]).abs().max() for x in results[1:]]
    assert 1e-5 < changes[0] < 1
    assert 1e-5 < changes[1] < 1 if taken(engine, "bf16") == "bf16" else changes[1] == 0


def given(form, **changes):
    """Arguments of `integrate`, some of them bad."""
    problem = Case(form=form).problem()
    field = {name: changes.pop(name) for name in list(changes) if hasattr(problem.field, name)}
    positional = [changes.pop("z", problem.z), changes.pop("h", problem.h)]
    if "widths" in field and form == "concatsquash":
        field["structure"] = replace(problem.field.structure, widths=field.pop("widths"))
    return (*positional, replace(problem.field, **field)), changes


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
        ({"trace": "closed"}, "trace: got 'closed', expected None, 'exact' or 'hutchinson'"),
        ({"log_det": "first"}, "log_det: got 'first', expected one of 'trace', 'second_order', "),
        ({"precision": "half"}, "precision: got 'half', expected one of 'full', 'bf16', 'fp16'"),
        ({"precision": "bf16"}, "precision: 'bf16' needs a float32 z"),
        ({"checkpoint_every": 0}, "checkpoint_every: got 0, expected an integer >= 1"),
        ({"trace": "hutchinson"}, r"probes: got None, expected \(K, B, D\) for the trace 'hutch"),
        ({"penalties": ("frobenius",)}, r"probes: got None, expected \(K, B, D\) for the penalty"),
        (
            {"trace": "hutchinson", "probes": torch.zeros(5, 3, **F64)},
            r"probes: got shape \(5, 3\), expected \(K, 5, 3\)",
        ),
        (
            {"trace": "hutchinson", "probes": torch.zeros(1, 5, 3, **F64, requires_grad=True)},
            "probes: got a tensor that",
        ),
        ({"trace": "exact", "probes": torch.zeros(1, 5, 3, **F64)}, "probes: given, but only"),
        ({"probes": torch.zeros(1, 5, 3, **F64)}, "probes: given, but only trace 'hutchinson' and"),
        ({"penalties": ("kinetic_energy", "mean_magnitude")}, "penalties: got .* in this order"),
        ({"penalties": ("speed",)}, "penalties: got"),
        (
            {"trace": "hutchinson", "probes": torch.zeros(1, 5, 3, **F64), "log_det": "exact"},
            "log_det: 'exact' needs trace='exact', got 'hutchinson'",
        ),
        (
            {"trace": "exact", "log_det": "exact", "penalties": ("kinetic_energy",)},
            "log_det: 'exact' does not go with",
        ),
        (
            {"trace": "exact", "log_det": "second_order", "tableau": TABLEAUS["heun2"]},
            "log_det: 'second_order' is a correction of Euler's method|got shape",
        ),
        ({"context": (torch.zeros(5, 7, **F64),)}, "context: got 1, expected 2 or none"),
        (
            {"context": (torch.zeros(4, 7, **F64), None)},
            r"context: got shape \(4, 7\), expected \(5, 7\)",
        ),
        ({"nonlinearity": "mish"}, "nonlinearity: got 'mish'"),
        ({"widths": (3,)}, r"widths: got \(3,\)"),
        ({"widths": (3, 7, 4)}, r"widths: got \(3, 7, 4\)"),
        ({"outputs": (2,)}, r"outputs: got \(2,\), expected ascending step counts ending in 3"),
        ({"outputs": (2, 1, 3)}, r"outputs: got \(2, 1, 3\)"),
        ({"outputs": (0, 3)}, r"outputs: got \(0, 3\)"),
        ({"outputs": ()}, r"outputs: got \(\)"),
    ],
)
def test_bad_arguments_are_named(engine, changes, message):
    positional, keywords = given("tables 1EE", **changes)
    with pytest.raises(ValueError, match=message):
        integrate(*positional, **keywords, engine=engine)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": torch.zeros(2, **F64)}, r"time: got shape \(2,\), expected \(3,\) or \(3, 2\)"),
        ({"time": torch.zeros(3, 4, **F64)}, r"time: got shape \(3, 4\), expected \(3,\) or"),
        ({"time": torch.zeros(3)}, "time: got dtype torch.float32, expected that of z"),
        ({"tensors": (torch.zeros(3),)}, "tensors: got dtype torch.float32, expected that of z"),
        ({"widths": (3, 7, 4)}, r"widths: got \(3, 7, 4\)"),
        ({"context": (None, torch.zeros(5, 4, **F64))}, r"context: got shape \(5, 4\), expected"),
        ({"gate_context": (None,)}, "gate_context: got 1, expected 2 or none"),
    ],
)
def test_bad_fields_are_named(engine, changes, message):
    positional, keywords = given("concatsquash", **changes)
    with pytest.raises(ValueError, match=message):
        integrate(*positional, **keywords, engine=engine)
