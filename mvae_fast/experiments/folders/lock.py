"""One run, one folder: locks that die with their process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout  # torch requires it

from mvae_fast.experiments.folders.files import make_folder
from mvae_fast.experiments.usage import UsageError, usage


@contextmanager
def locked(folder: Path, model: str = "") -> Iterator[None]:
    """Hold a run's folder, or that of one of its models; nobody else can meanwhile.

    The lock is the process's, not the file's, which stays: a process that is killed leaves none. Of
    the processes of one training the first holds it for all.

    Args:
        folder: Of the run.
        model: Of the run, where the lock is for what one process writes of it. ``reproduce
            --jobs`` holds the run in one process and trains its models in others, which may live
            on when the first is killed.

    Raises:
        UsageError: If another process holds it, and then nothing has been changed, or if there can
            be no such folder.
    """
    from lightning.pytorch.utilities import rank_zero_only  # takes seconds, which readers save

    if rank_zero_only.rank:  # type: ignore[attr-defined]
        yield
        return
    with usage():
        path = make_folder(folder, "out") / f".mvae_fast{model and '.' + model}.lock"
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(
                f"{folder / model} is in use by another run; wait for its end, or name another out"
            ) from None
    try:
        yield
    finally:
        lock.release()
