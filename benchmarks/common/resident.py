"""The resident memory of a process, as Linux counts it, and fresh processes to measure it in."""

import contextlib
import ctypes
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

_Result = TypeVar("_Result")

_STATUS = Path("/proc/self/status")
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def why_unavailable() -> str | None:
    """None where memory can be measured, else the reason."""
    if _STATUS.exists():
        return None
    return f"memory is read from {_STATUS}, which only Linux has; remedy: run this on Linux"


def parse_status(text: str) -> dict[str, int]:
    """The entries of ``/proc/<pid>/status`` that are sizes, in bytes."""
    entries = (line.partition(":") for line in text.splitlines())
    words = {name: value.split() for name, _, value in entries}
    return {
        name: 1024 * int(value[0])
        for name, value in words.items()
        if len(value) == 2 and value[1] == "kB"
    }


def resident() -> int:
    """Bytes of this process in memory now."""
    return parse_status(_STATUS.read_text())["VmRSS"]


def peak() -> int:
    """The most bytes of this process in memory since `reset_peak`."""
    return parse_status(_STATUS.read_text())["VmHWM"]


def reset_peak() -> None:
    """Let `peak` begin from now; where the system forbids it, from the start of the process.

    The latter can only make a peak look higher, and does so only where the process held more before
    than during what is measured.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def return_freed_memory() -> None:
    """Let glibc give back every freed block of 128 KiB or more at once, so that resident is live.

    Else that threshold grows with the blocks that are freed, up to 32 MiB, and what is resident
    depends on the order in which a process has asked for memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries lack it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 128 << 10)


def in_fresh_process(function: Callable[..., _Result], *arguments: object) -> _Result:
    """What a module's ``function(*arguments)`` gives in a new interpreter, which ends with it."""
    # Not forked: a fork starts with the pages that its parent has gathered.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
