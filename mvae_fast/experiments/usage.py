"""Telling what a user asked for amiss from what went wrong inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["UsageError", "usage"]


class UsageError(Exception):
    """What was asked for cannot be done; the message says why, and a traceback would not help."""


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
