"""Telling what a user asked for amiss from what went wrong inside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["RunError", "UsageError", "going_on", "say", "usage"]


class UsageError(Exception):
    """What was asked for cannot be done; the message says why, and a traceback would not help."""


class RunError(Exception):
    """A run that had begun cannot go on; the message says why and what to do."""


def say(message: str) -> None:
    """Tell the user what a run does otherwise than it was asked to."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def going_on(how: str) -> Iterator[None]:
    """Take what the file system refuses in the midst of a run for the machine's fault, and an
    interruption for the user's wish; what was written until then is whole.

    Args:
        how: the run can be gone on with.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how) from None
    except OSError as error:
        raise RunError(f"{error}. {how}") from error


@contextmanager
def usage() -> Iterator[None]:
    """Take errors about values, files, connections and optional packages for the user's.

    For the steps that only look at settings and data: the same errors from anywhere else are
    faults of ours, and keep their traceback.

    Example:
        >>> with usage():
        ...     raise ValueError("epochs must be positive, got 0")
        Traceback (most recent call last):
        mvae_fast.experiments.usage.UsageError: epochs must be positive, got 0
    """
    try:
        yield
    except ModuleNotFoundError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise UsageError(str(error)) from error
