"""Options of ``pytest benchmarks/``, and the table at its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.environment import environment
from benchmarks.workloads import select

_ROWS = pytest.StashKey[list[report.Row]]()
_ENVIRONMENT = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mvae_fast")
    group.addoption("--full", action="store_true", help="all workloads against all peers (long)")
    group.addoption("--workloads", help="only these, such as W2,W4")
    group.addoption("--threads", default="2", help="thread counts, such as 1,2 (default 2)")
    group.addoption("--dtype", default="float32", choices=["float32", "float64"])
    group.addoption(
        "--clock",
        default="wall",
        choices=["wall", "cpu"],
        help="cpu: time on the core, for --threads 1 on a busy machine",
    )
    group.addoption("--out", type=Path, help="save the run as JSON, for benchmarks.report")


def pytest_configure(config: pytest.Config) -> None:
    try:
        select((config.getoption("workloads") or "").split(",") if _restricted(config) else ())
        thread_counts = [int(count) for count in config.getoption("threads").split(",")]
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    if min(thread_counts) < 1:
        raise pytest.UsageError(f"--threads: got {thread_counts}, expected counts >= 1")
    if config.getoption("clock") == "cpu" and thread_counts != [1]:
        # With more threads it would count them waiting for each other.
        raise pytest.UsageError("--clock cpu: expected --threads 1")
    config.stash[_ROWS] = []
    config.stash[_ENVIRONMENT] = environment()
    # pytest-benchmark's own table knows nothing of peers; --benchmark-json still has everything.
    config.option.benchmark_quiet = True


def _restricted(config: pytest.Config) -> bool:
    return config.getoption("workloads") is not None


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[report.Row], None]:
    """Add a row to the table of this run."""
    return request.config.stash[_ROWS].append


def _run(config: pytest.Config) -> dict[str, Any]:
    # From the options rather than from the command line, which may hold paths of this machine.
    command = "pytest benchmarks/"
    if config.getoption("full"):
        command += " --full"
    defaults = {"workloads": None, "threads": "2", "dtype": "float32", "clock": "wall"}
    for name, default in defaults.items():
        if config.getoption(name) != default:
            command += f" --{name} {config.getoption(name)}"
    return {
        "command": command,
        "clock": config.getoption("clock"),
        "environment": config.stash[_ENVIRONMENT],
        "rows": config.stash[_ROWS],
    }


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run = _run(config)
    if not run["rows"]:
        return
    terminalreporter.section("benchmarks")
    terminalreporter.write_line(report.markdown(run))
    out = config.getoption("out")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(run) + "\n")
