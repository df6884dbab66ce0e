"""Saved runs become tables."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.common.summary import summary

ROOT = Path(__file__).parents[2]

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
    assert "| workload | mode | threads | FastCNF | odeint: slower by | rounds |" in lines
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


GPU_ROW = {
    "workload": "W2 B=256",
    "shape": "D=128, B=256",
    "mode": "train",
    "precision": "tf32",
    "dtype": "float32",
    "batch": 256,
    "steps": 20,
    "ours": ["one"],
    "seconds": {"one": [0.001, 0.001], "odeint": [0.070, 0.090]},
    "memory": {"one": 3_000_000},
    "sizes": {"states": 2_000_000, "packed": 0, "outputs": 1_000_000},
}


def test_rows_of_a_gpu_have_tables_of_their_own():
    text = report.markdown(RUN | {"rows": [*RUN["rows"], GPU_ROW]})
    assert text.startswith(
        "Command: `pytest benchmarks/ --workloads W2`, float32, wall time, device time between"
    )
    lines = text.splitlines()
    assert "| W2 | train | 2 | 10 ms | 5.00x (4.50-5.50), 50 ms | 3 |" in lines
    assert "| workload | mode | precision | one | odeint: slower by | rounds |" in lines
    assert "| W2 B=256 | train | tf32 | 1 ms | 80.00x (75.00-85.00), 80 ms | 2 |" in lines
    assert any("how many times longer than one" in line for line in lines)
    assert any(line.startswith("Latency of one step at B=256") for line in lines)
    assert any(line.endswith("| 3.0 (1.00x) |") for line in lines)
    assert any(line.startswith("Aims in training") for line in lines)


def test_csv_of_both_kinds_of_rows():
    lines = report.to_csv(RUN | {"rows": [*RUN["rows"], GPU_ROW]}).splitlines()
    assert lines[0].startswith("workload,mode,threads,precision,dtype,candidate")
    assert lines[1].startswith("W2,train,2,,float32,FastCNF")
    assert lines[-1].startswith("W2 B=256,train,,tf32,float32,odeint")


def row(workload, seconds, mode="train", threads=1):
    exact = {"FastCNF", "jax exact", "jax closed form"}
    traces = {n: "exact" if n in exact else "hutchinson" for n in seconds if "bf16" not in n}
    facts = {"workload": workload, "shape": "", "mode": mode, "threads": threads}
    return facts | {"dtype": "float32", "seconds": seconds, "traces": traces}


def test_estimators_are_compared_trace_by_trace():
    rows = [
        row(
            "W2",
            {
                "FastCNF": [0.010, 0.010],
                "FastCNF hutchinson": [0.020, 0.020],
                "FastCNF bf16": [0.001, 0.001],
                "odeint": [0.040, 0.060],
                "jax closed form": [0.030, 0.030],
            },
        ),
        row("W2", {"FastCNF": [0.008], "jax exact": [0.8]}),
        row("W3", {"FastCNF": [0.5], "odeint": [1.0]}),
    ]
    lines = report.markdown(RUN | {"rows": rows}).splitlines()
    begin = lines.index("Trace by trace, train, 1 thread:")
    assert lines[begin + 2 : begin + 9] == [
        "| trace | whose | W2 | W3 |",
        "|---|---|---|---|",
        "| exact | FastCNF | 10 ms | 500 ms |",
        "| exact | jax closed form | 3.00x (3.00-3.00) |  |",
        "| exact | jax exact | 100.00x (100.00-100.00) |  |",
        "| Hutchinson | FastCNF hutchinson | 20 ms |  |",
        # W3 has none of ours to divide by.
        "| Hutchinson | odeint | 2.50x (2.25-2.75) |  |",
    ]


def test_without_an_exact_peer_there_is_no_such_table():
    seconds = {"FastCNF": [1.0], "FastCNF hutchinson": [1.0], "odeint": [2.0]}
    assert "Trace by trace" not in report.markdown(RUN | {"rows": [row("W2", seconds)]})


def test_what_was_not_measured_is_said():
    text = report.markdown(RUN | {"missing": ["jax is not installed; remedy: some"]})
    assert "- not measured: jax is not installed; remedy: some" in text.splitlines()


def test_the_page_has_what_the_saved_runs_say():
    page = ROOT / "docs/benchmarks.md"
    assert page.read_text() == report.on_page(page.read_text())
    named = set(re.findall(r"<!-- run (\S+) -->", page.read_text()))
    assert named == {path.stem for path in report.RESULTS.glob("*.json")} - {"zuko-1-thread"}


def test_summary_names_where_a_peer_is_faster():
    rows = [
        {"workload": name, "mode": "train", "threads": 1, "seconds": {"FastCNF": [1.0], **peers}}
        for name, peers in (
            ("W1", {"FastCNF bf16": [0.5], "odeint": [0.9]}),
            ("W2", {"odeint": [3.0], "jax vjp": [2.0]}),
        )
    ]
    assert summary(rows) == [
        "- odeint, train: 0.9 to 3 times our time; faster than ours in W1 (1 thread)",
        "- jax vjp, train: 2 times our time",
    ]
