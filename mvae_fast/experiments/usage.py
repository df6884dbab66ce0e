"""What a user is told of what was asked for amiss or went wrong, and what not."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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
        how: The run can be gone on with.
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


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says about hardware it found, data-loader workers and log intervals.

    Errors and the warnings of everything else still get through.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
