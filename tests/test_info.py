"""`environment_report`: complete, and honest about missing engines."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import numpy
import pytest
import torch

import mvae_fast
from mvae_fast import engines, info
from mvae_fast.cli import main
from mvae_fast.engines import cpp


def test_versions_and_engines_are_listed():
    report = info.environment_report()
    for version in (mvae_fast.__version__, torch.__version__, numpy.__version__):
        assert version in report
    assert platform.python_version() in report
    assert all(name in report for name in engines.ENGINES)


def test_json_holds_what_the_text_does(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == info.environment()
    assert list(found.pop("engines")) == list(engines.ENGINES)
    assert all(str(fact) in info.environment_report() for fact in found.values())


@pytest.mark.slow
def test_the_module_prints_the_report():
    command = [sys.executable, "-m", "mvae_fast.info"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        line.split()[:2] for line in info.environment_report().splitlines()
    ]
    assert done.stderr == ""


@pytest.mark.skipif(cpp.why_missing() is not None, reason="needs the C++ engine")
def test_what_is_taken_for_bf16(capability):
    bf16 = "yes" if capability == "avx512_bf16" else "no (float32 is taken)"
    (line,) = [x for x in info.environment_report().splitlines() if x.startswith("kernels")]
    assert line.split(maxsplit=1)[1] == f"{capability}, products in bf16: {bf16}"


def test_without_the_engine_there_are_no_kernels(monkeypatch):
    monkeypatch.setattr(cpp, "_CAPABILITY", None)
    assert "kernels      none" in info.environment_report().splitlines()


def test_a_missing_engine_tells_why_and_what_to_do(monkeypatch):
    reason = "no compiler\nsecond line; remedy: install one"
    monkeypatch.setattr(engines, "why_missing", lambda name: reason if name == "cpp" else None)
    lines = info.environment_report().splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.split()[:1] == ["cpp"]]
    assert lines[at].endswith("missing")
    assert [line.strip() for line in lines[at + 1 : at + 3]] == reason.splitlines()


def test_missing_packages_and_compiler_are_reported_not_raised(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(info, "version", lambda name, ask=info.version: ask(f"no-such-{name}"))
    report = info.environment_report()
    assert report.count("not installed") == 4
    assert "none found" in report
