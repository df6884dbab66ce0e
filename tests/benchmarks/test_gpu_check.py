"""gpu_check.sh: for real up to the first device call, and with a stand-in for Python beyond it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import device as gpu_device
from benchmarks.gpu import modules as gpu_modules
from benchmarks.gpu.timing import why_no_gpu

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.sh"
BEFORE = ["environment", "modules", "build", "engines", "collect", "device"]
AFTER = ["oracle", "memcheck", "racecheck", "graphs", "sizes", "prepare"]
AFTER += ["times", "roofline", "compiled"]

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("timeout") is None,
    reason="needs bash and coreutils' timeout",
)
without_gpu = pytest.mark.skipif(why_no_gpu() is None, reason="needs a machine without a GPU")


def check(folder, *options, python=sys.executable, **environment):
    """Run the script: its exit status, its output and the results by stage."""
    done = subprocess.run(
        ["bash", str(SCRIPT), *options, str(folder)],
        env={**os.environ, "PYTHON": str(python), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    results = {}
    for line in (folder / "summary.txt").read_text().splitlines():
        result, (name, *rest) = line[:8].strip(), line[8:].split()
        results[name] = (result, " ".join(rest))
    return done.returncode, done.stdout, results


@without_gpu
def test_it_stops_at_the_first_device_call(tmp_path):
    status, output, results = check(tmp_path, "--skip-build")
    assert status == 3, output
    assert list(results) == [*BEFORE, *AFTER]
    ran = [name for name in BEFORE if name != "build"]
    assert [results.pop(name)[0] for name in ran] == ["ok"] * 4 + ["no GPU"]
    assert {result for result, _ in results.values()} == {"not run"}
    assert results["build"][1].endswith("--skip-build") and results["times"][1].endswith("no GPU")
    assert f"No GPU: {why_no_gpu()}. Stopped at the first device call." in output
    assert all((tmp_path / f"{name}.log").stat().st_size for name in ran)
    assert "tests collected" in (tmp_path / "collect.log").read_text()


@pytest.fixture
def stand_in(tmp_path):
    """A Python that writes down how it was called, and fails where it is told to."""
    path = tmp_path / "python"
    path.write_text(
        '#!/bin/sh\necho "$@" >>"$CALLS"\n'
        'case "$*" in *"$FAIL"*) echo "told to fail"; exit 5 ;;\n'
        '*"cuda- tests/gpu/test_sizes.py") echo "3 skipped in 1s"; exit 0 ;; esac\n'
        'echo "all went well"\n'
    )
    path.chmod(0o755)
    calls = tmp_path / "calls"

    def run(*options, fail="nothing"):
        folder = tmp_path / "logs"
        status, _, results = check(folder, *options, python=path, CALLS=str(calls), FAIL=fail)
        return status, results, calls.read_text()

    return run


def test_with_a_gpu_every_stage_runs(stand_in):
    status, results, calls = stand_in("--skip-build")
    assert status == 0
    assert list(results) == [*BEFORE, *AFTER]
    assert results.pop("sizes")[0] == "not run"  # all of it was skipped
    for name in ("device", "oracle", "graphs", "prepare", "times", "roofline", "compiled"):
        assert results[name][0] == "ok" and results[name][1].endswith("all went well"), name
    assert "--compiled --workloads W2 --batches 1024" in calls
    assert "setup.py" not in calls


def test_a_failure_is_reported_and_stops_nothing(stand_in):
    status, results, _ = stand_in("--skip-build", fail="benchmarks.gpu.roofline")
    assert status == 1
    assert results["roofline"][0] == "failed"
    assert results["roofline"][1].endswith("status 5; told to fail")
    assert results["compiled"][0] == "ok"


def test_it_builds_and_is_quick_when_asked(stand_in):
    status, results, calls = stand_in("--quick")
    # The tree's own extension may have failed to build; that is what the stage looks at.
    built = not any(SCRIPT.parents[1].glob("mvae_fast/*build_error*.txt"))
    assert results["build"][0] == ("ok" if built else "failed")
    assert status == (0 if built else 1)
    assert "setup.py build_ext --inplace" in calls
    assert "--workloads W2 --batches 256,1024 --out" in calls and "--compiled" not in calls
    assert "compiled" not in results


def test_nothing_starts_where_a_module_is_missing(stand_in):
    status, results, _ = stand_in(fail="benchmarks.gpu.modules")
    assert status == 1
    assert list(results) == ["environment", "modules"]


def test_wrong_options_are_named(tmp_path):
    done = subprocess.run(
        ["bash", str(SCRIPT), "--fast", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown option --fast; usage:" in done.stderr
    assert "benchmarks/gpu_check.sh [--quick] [--skip-build] [FOLDER]" in done.stderr


def test_modules(monkeypatch, capsys):
    assert gpu_modules.main() == 0
    assert "all that is needed is there" in capsys.readouterr().out
    monkeypatch.setattr(gpu_modules, "NEEDED", {"no_such_module": "nothing works"})
    monkeypatch.setattr(gpu_modules, "USEFUL", {"nor_this_one": "slowly"})
    assert gpu_modules.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "no_such_module MISSING, needed: without it nothing works",
        "nor_this_one MISSING, goes on slowly",
        "missing: no_such_module",
    ]


@without_gpu
def test_first_device_call(capsys):
    assert gpu_device.main() == gpu_device.NO_GPU
    assert capsys.readouterr().out == f"{why_no_gpu()}\n"
