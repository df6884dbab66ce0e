"""Resident memory is read as it is."""

import gc
import os

import pytest

from benchmarks.common import resident
from benchmarks.common.resident import in_fresh_process, parse_status

linux = pytest.mark.skipif(resident.why_unavailable() is not None, reason="needs Linux's /proc")

MIB = 2**20


def test_parse_status():
    text = "Name:\tVmRSS: 7\nState:\tR (running)\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nSeccomp:\t0\n"
    assert parse_status(text) == {"VmHWM": 300 * 1024, "VmRSS": 200 * 1024}


def _keep_32_mib_and_touch_64_more():
    resident.return_freed_memory()
    gc.collect()
    resident.reset_peak()
    before = resident.resident()
    kept = bytearray(b"x" * (32 * MIB))  # the literal's operand is freed, the array stays
    dropped = bytearray(b"y" * (64 * MIB))
    del dropped
    return resident.resident() - before, resident.peak() - before, len(kept)


@linux
def test_resident_and_peak_see_what_is_kept_and_what_was_dropped():
    kept, peak, _ = in_fresh_process(_keep_32_mib_and_touch_64_more)
    assert kept == pytest.approx(32 * MIB, abs=2 * MIB)
    assert peak == pytest.approx((32 + 2 * 64) * MIB, abs=2 * MIB)


def test_a_fresh_process_is_another_one():
    assert in_fresh_process(os.getpid) != os.getpid()


def test_a_fresh_process_hands_on_an_error():
    with pytest.raises(ZeroDivisionError):
        in_fresh_process(divmod, 1, 0)


def test_elsewhere_the_reason_is_given(monkeypatch, tmp_path):
    monkeypatch.setattr(resident, "_STATUS", tmp_path / "missing")
    assert "only Linux" in resident.why_unavailable()
