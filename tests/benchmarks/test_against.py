"""This checkout against itself, and against one that is none."""

import re
import subprocess
import sys

import pytest

from benchmarks import against
from mvae_fast.engines import cpp as ops

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")


def run(*argv):
    command = [sys.executable, "-m", "benchmarks.against", *argv]
    return subprocess.run(command, cwd=against.ROOT, capture_output=True, text=True)


def test_against_itself():
    done = run(str(against.ROOT), "--workloads", "W1", "--budget", "0", "--clock", "cpu")
    assert done.returncode == 0, done.stderr
    (row,) = re.findall(r"\| W1 \| ([\d.]+) \| ([\d.]+) \(.*\), 15 rounds \|", done.stdout)
    # Nothing but noise keeps the same code from 1, and not by so much.
    assert float(row[0]) > 0 and 0.2 < float(row[1]) < 5


def test_a_folder_without_the_package_is_named(tmp_path):
    done = run(str(tmp_path), "--workloads", "W1", "--budget", "0")
    assert done.returncode != 0 and str(tmp_path) in done.stderr
