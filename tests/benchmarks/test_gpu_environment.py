"""What is said of a GPU, and nothing where there is none."""

import sys

import pytest

from benchmarks.gpu.environment import _first_line, gpu_environment, parse_smi
from benchmarks.gpu.timing import why_no_gpu


def test_the_drivers_answer_in_words():
    line = "580.159, Enabled, 345 MHz, 1980 MHz, 3201 MHz, 700.00 W, 31"
    assert parse_smi(line) == (
        "580.159, persistence Enabled, SM clock 345 MHz of 1980 MHz before the run, as the driver "
        "sets it, memory 3201 MHz, 700.00 W, 31 C"
    )
    assert parse_smi("No devices were found") == "unknown (No devices were found)"


def test_commands_may_be_missing_or_silent():
    assert _first_line("no-such-command-at-all") == "not installed"
    assert _first_line(sys.executable, "-c", "") == f"{sys.executable} says nothing"
    assert _first_line(sys.executable, "-c", "print('a\\nb')") == "a"
    assert _first_line(sys.executable, "-c", "print('a\\nb')", last=True) == "b"


@pytest.mark.skipif(why_no_gpu() is None, reason="needs a machine without a GPU")
def test_without_a_gpu_there_is_nothing_to_say():
    assert gpu_environment() == {}
