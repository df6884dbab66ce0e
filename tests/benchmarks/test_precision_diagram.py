"""The diagram of accuracy against time: errors are those of the solvers, and it comes out."""

import pytest
import torch
from torchdiffeq import odeint

from benchmarks.clients import precision_diagram
from benchmarks.clients.precision_diagram import Point, Trained, points, table
from benchmarks.common.workloads import Workload
from benchmarks.peers.ffjord import Dynamics

SMALL = Trained(
    Workload("toy", 2, (6, 5), "concatsquash", "tanh", 30, 0, ""),
    lambda: torch.randn(100, 2) * torch.tensor([3.0, 1.0]),
    5,
)


@pytest.fixture(scope="module")
def measured():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    flow, rows = SMALL.train()
    yield flow, rows, points(flow, rows, 0.0)
    torch.set_num_threads(before)


def test_errors_are_those_of_torchdiffeq_s_fine_solution(measured):
    flow, rows, found = measured
    dynamics = Dynamics(flow.odefunc.diffeq.double(), exact=True)
    state = rows.double(), torch.zeros(len(rows), 1, dtype=torch.float64)
    with torch.no_grad():
        z, change = odeint(dynamics, state, torch.tensor([0.0, 1.0]), rtol=1e-10, atol=1e-10)
        coarse = odeint(
            dynamics, state, torch.tensor([0.0, 1.0]), method="euler", options={"step_size": 1 / 4}
        )
    flow.float()
    (euler,) = (p for p in found if (p.solver, p.setting) == ("euler", 4))
    for got, fine, error in zip(coarse, (z, change), euler[-2:], strict=True):
        wanted = ((got[-1] - fine[-1]).norm() / fine[-1].norm()).item()
        assert error == pytest.approx(wanted, rel=1e-3)


def test_orders_and_tolerances(measured):
    _, _, found = measured
    errors = {(p.solver, p.setting): p.state_error for p in found}
    for solver, steps, order in (("euler", 64, 1), ("midpoint", 8, 2)):
        ratio = errors[solver, steps] / errors[solver, 2 * steps]
        assert ratio == pytest.approx(2**order, rel=0.15)
    for solver in ("dopri5", "tsit5"):
        assert errors[solver, 1e-5] < 1e-4
    assert {p.evaluations for p in found if p.solver == "rk4"} == {4, 8, 16, 32, 64, 128}
    assert all(p.seconds > 0 for p in found)


def test_training_is_the_same_each_time():
    first, second = (SMALL.train()[0].state_dict() for _ in range(2))
    for name, weight in first.items():
        assert torch.equal(weight, second[name])


def test_table():
    measured = {
        "toy, D=2": [
            Point("euler", 64, 64, 0.01, 5e-3, 1e-4),
            Point("euler", 128, 128, 0.02, 2e-3, 1e-4),
            Point("rk4", 2, 8, 0.003, 1e-5, 5e-4),
        ]
    }
    head, _, loose, middle, tight = table(measured).splitlines()
    assert head == "| flow | error | euler | midpoint | rk4 | dopri5 | tsit5 |"
    assert loose == "| toy, D=2 | 1e-02 | 10 ms, 64 |  | 3 ms, 8 |  |  |"
    assert middle == "| toy, D=2 | 1e-03 |  |  | 3 ms, 8 |  |  |"
    assert tight == "| toy, D=2 | 1e-04 |  |  |  |  |  |"


def test_command_line(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "figures" / "diagram.png"
    precision_diagram.main(["--seconds", "0", "--out", str(out)], [SMALL])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "| toy, D=2 | 1e-02 | " in capsys.readouterr().out
