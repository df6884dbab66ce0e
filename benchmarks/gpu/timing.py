"""Device time of a call, and calls recorded as CUDA graphs."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

_Outputs = TypeVar("_Outputs")


def why_no_gpu() -> str | None:
    """None where torch sees a GPU, else the reason."""
    if torch.cuda.is_available():
        return None
    build = torch.version.cuda
    if build is None:
        return "needs a GPU: this torch is a CPU build"
    return f"needs a GPU: torch, built for CUDA {build}, sees none"


class Event(Protocol):
    """What is used of ``torch.cuda.Event``."""

    def record(self) -> None: ...
    def synchronize(self) -> None: ...
    def elapsed_time(self, end_event: Any) -> float: ...


class DeviceTimer:
    """Seconds between two events around a call on the current stream, after an L2 flush.

    The flush makes a call read its inputs from memory, as in a training loop that has done other
    things since, and gives the host a start of some 0.1 ms over the GPU. What a call's own launches
    take longer than its kernels still counts, since it delays a training step as much.

    Args:
        flush: Overwrites the cache, asynchronously.
    """

    def __init__(self, begin: Event, end: Event, flush: Callable[[], object]) -> None:
        self._begin = begin
        self._end = end
        self._flush = flush

    @classmethod
    def on_gpu(cls) -> "DeviceTimer":
        """For the current GPU."""
        size = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        # At least as much as takes an H200 0.1 ms to write.
        buffer = torch.empty(max(2 * size, 256 << 20), dtype=torch.int8, device="cuda")
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        return cls(begin, end, buffer.zero_)

    def __call__(self, call: Callable[[], object]) -> float:
        """Make the call and wait for it."""
        self._flush()
        self._begin.record()
        call()
        self._end.record()
        self._end.synchronize()
        return 1e-3 * self._begin.elapsed_time(self._end)


def captured(call: Callable[[], _Outputs]) -> tuple[Callable[[], object], _Outputs]:
    """Record a call as a CUDA graph.

    Args:
        call: Reads and writes only tensors that stay where they are.

    Returns:
        The replay, and the tensors that each replay writes; undefined before the first.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    # Kernels are compiled and libraries set up before the recording, where both are forbidden.
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()
    return graph.replay, outputs
