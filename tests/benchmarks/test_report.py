"""Saved runs become tables."""

import json

import pytest

from benchmarks import report

RUN = {
    "command": "pytest benchmarks/ --workloads W2",
    "clock": "wall",
    "environment": {"CPU": "some model, 2 cores"},
    "rows": [
        {
            "workload": "W2",
            "shape": "D=128",
            "mode": "train",
            "threads": 2,
            "dtype": "float32",
            "seconds": {"FastCNF": [0.010, 0.010, 0.020], "odeint": [0.040, 0.050, 0.120]},
        },
        {
            "workload": "W2",
            "shape": "D=128",
            "mode": "inference",
            "threads": 2,
            "dtype": "float32",
            "seconds": {"FastCNF": [0.002]},
        },
    ],
}


def test_markdown():
    lines = report.markdown(RUN).splitlines()
    assert lines[0] == "Command: `pytest benchmarks/ --workloads W2`, float32, wall time"
    assert "- CPU: some model, 2 cores" in lines
    assert "| workload | mode | threads | FastCNF | odeint | rounds |" in lines
    assert "| W2 | train | 2 | 10 ms | 5.00x (4.50-5.50), 50 ms | 3 |" in lines
    assert "| W2 | inference | 2 | 2 ms |  | 1 |" in lines
    assert lines[-1] == "- W2: D=128"


def test_csv():
    lines = report.to_csv(RUN).splitlines()
    assert lines[0].split(",")[:5] == ["workload", "mode", "threads", "dtype", "candidate"]
    assert lines[2] == ("W2,train,2,float32,odeint,45.0000,50.0000,85.0000,4.500,5.000,5.500,3")
    assert len(lines) == 1 + 3


@pytest.mark.parametrize("extra", [[], ["--csv"]])
def test_command_line(tmp_path, capsys, extra):
    saved = tmp_path / "run.json"
    saved.write_text(json.dumps(RUN))
    report.main([str(saved), *extra])
    assert "W2" in capsys.readouterr().out
