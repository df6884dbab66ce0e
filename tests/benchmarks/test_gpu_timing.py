"""Device time, with events under control."""

import pytest
import torch

from benchmarks.common.interleave import interleave
from benchmarks.gpu.timing import DeviceTimer, why_no_gpu


class FakeGpu:
    """A stream that runs what it is given at once, and counts milliseconds."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def spend(self, name, milliseconds):
        self.log.append(name)
        self.now += milliseconds

    def event(self, name):
        gpu = self

        class Event:
            def record(self):
                gpu.log.append(f"record {name}")
                self.time = gpu.now

            def synchronize(self):
                gpu.log.append(f"wait for {name}")

            def elapsed_time(self, end):
                return end.time - self.time

        return Event()

    def timer(self):
        return DeviceTimer(self.event("begin"), self.event("end"), lambda: self.spend("flush", 7))


def test_the_call_is_between_the_events_and_the_flush_is_not():
    gpu = FakeGpu()
    assert gpu.timer()(lambda: gpu.spend("call", 3)) == pytest.approx(3e-3)
    assert gpu.log == ["flush", "record begin", "call", "record end", "wait for end"]


def test_candidates_take_turns_under_it():
    gpu = FakeGpu()
    timings = interleave(
        {"slow": lambda: gpu.spend("slow", 4), "fast": lambda: gpu.spend("fast", 1)},
        threads=1,
        budget=0,
        min_rounds=3,
        warmup=1,
        timer=gpu.timer(),
    )
    assert [name for name in gpu.log if name in ("slow", "fast")] == ["slow", "fast"] * 4
    assert timings.ratio("slow", "fast").median == pytest.approx(4)
    assert gpu.log.count("flush") == 6  # not in the warmup


@pytest.mark.parametrize(
    ("build", "reason"),
    [(None, "this torch is a CPU build"), ("13.0", "torch, built for CUDA 13.0, sees none")],
)
def test_the_reason_tells_a_cpu_build_from_a_missing_card(monkeypatch, build, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    assert why_no_gpu() == f"needs a GPU: {reason}"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert why_no_gpu() is None
