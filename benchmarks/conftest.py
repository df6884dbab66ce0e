"""Options of ``pytest benchmarks/``, and the table at its end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.common.environment import environment
from benchmarks.common.peers import PEERS, select_peers, versions, why_missing
from benchmarks.common.precision import PRECISIONS
from benchmarks.common.workloads import select

_ROWS = pytest.StashKey[list[report.Row]]()
_ENVIRONMENT = pytest.StashKey[dict[str, str | None]]()


_DEFAULTS = {
    "workloads": None,
    "peers": None,
    "threads": "2",
    "dtype": "float32",
    "clock": "wall",
    "batches": "256,1024,16384",
    "precisions": "tf32,bf16",
}
_CHOICES = {"dtype": ["float32", "float64"], "clock": ["wall", "cpu"]}
_HELP = {
    "workloads": "only these, such as W2,W4",
    "peers": f"on a CPU: all, or some of {','.join(PEERS)} (default: torchdiffeq, in part)",
    "threads": "on a CPU: thread counts, such as 1,2 (default 2)",
    "dtype": "on a CPU",
    "clock": "on a CPU; cpu: time on the core, for --threads 1 on a busy machine",
    "batches": "on a GPU: rows of each workload",
    "precisions": f"on a GPU: some of {','.join(PRECISIONS)}",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mvae_fast")
    group.addoption("--full", action="store_true", help="all workloads against all peers (long)")
    group.addoption(
        "--compiled",
        action="store_true",
        help="on a GPU: also against torch.compile(mode='max-autotune') (minutes of compiling)",
    )
    for name, default in _DEFAULTS.items():
        group.addoption(f"--{name}", default=default, choices=_CHOICES.get(name), help=_HELP[name])
    group.addoption("--out", type=Path, help="save the run as JSON, for benchmarks.report")


def pytest_configure(config: pytest.Config) -> None:
    try:
        named = config.getoption("workloads")
        select(() if named is None else named.split(","))
        peers = select_peers(config.getoption("peers"))
        thread_counts = [int(count) for count in config.getoption("threads").split(",")]
        batches = [int(rows) for rows in config.getoption("batches").split(",")]
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    for name, counts in (("threads", thread_counts), ("batches", batches)):
        if min(counts) < 1:
            raise pytest.UsageError(f"--{name}: got {counts}, expected counts >= 1")
    if not {*config.getoption("precisions").split(",")} <= {*PRECISIONS}:
        raise pytest.UsageError(
            f"--precisions: got {config.getoption('precisions')}, "
            f"expected some of {','.join(PRECISIONS)}"
        )
    if config.getoption("clock") == "cpu" and thread_counts != [1]:
        # With more threads it would count them waiting for each other.
        raise pytest.UsageError("--clock cpu: expected --threads 1")
    config.stash[_ROWS] = []
    config.stash[_ENVIRONMENT] = environment() | versions(peers)
    # Its own table knows nothing of peers; it is for --benchmark-compare, with a run saved before.
    config.option.benchmark_quiet = config.option.benchmark_compare == []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """An epoch is no workload and no peer's; peers with nets of their own run where named."""
    peers = select_peers(config.getoption("peers"))
    narrowed = bool(peers) or config.getoption("workloads") is not None

    def left_out(item: pytest.Item) -> bool:
        if item.path.name == "test_clients.py":
            if config.getoption("workloads") is not None:
                return True  # those are no clients'
            comparison = item.callspec.params["comparison"]  # type: ignore[attr-defined]
            if peers:
                return comparison.peer not in peers
            every = config.getoption("full") and comparison.peer == "torchdiffeq"
            return not (every or comparison.quick)
        if item.path.name == "test_own_nets.py":
            return item.callspec.params["peer"] not in peers  # type: ignore[attr-defined]
        if item.path.name == "test_gpu.py":
            return bool(peers)  # the option is a CPU's
        return narrowed and item.path.name == "test_epoch.py"

    dropped = [item for item in items if left_out(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[report.Row], None]:
    """Add a row to the table of this run."""
    config = request.config

    def add(row: report.Row) -> None:
        config.stash[_ROWS].append(row)
        # Row by row: a run that is stopped keeps what it has measured.
        out = config.getoption("out")
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(_run(config)) + "\n")

    return add


def _run(config: pytest.Config) -> dict[str, Any]:
    # From the options rather than from the command line, which may hold paths of this machine.
    rows = config.stash[_ROWS]
    command = "pytest benchmarks/"
    if not any("threads" in row for row in rows):
        command += "test_gpu.py"
    elif all(row["mode"] == "epoch" for row in rows):
        command += "test_epoch.py"
    elif all("aims" in row for row in rows):
        command += "test_clients.py"
    for name in ("full", "compiled"):
        if config.getoption(name):
            command += f" --{name}"
    for name, default in _DEFAULTS.items():
        if config.getoption(name) != default:
            command += f" --{name} {config.getoption(name)}"
    return {
        "command": command,
        "clock": config.getoption("clock"),
        "environment": config.stash[_ENVIRONMENT],
        "missing": [
            reason
            for peer in select_peers(config.getoption("peers"))
            if (reason := why_missing(peer))
        ],
        "rows": rows,
    }


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run = _run(config)
    if not run["rows"]:
        return
    terminalreporter.section("benchmarks")
    terminalreporter.write_line(report.markdown(run))
