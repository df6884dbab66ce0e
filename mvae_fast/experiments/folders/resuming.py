"""Lightning's checkpoints, one of which is always whole, and the one to go on from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO

from mvae_fast.experiments.folders.checkpoints import load_checkpoint
from mvae_fast.experiments.folders.files import write_saved
from mvae_fast.experiments.usage import RunError, say
from mvae_fast.vae.builders.saved import read_saved

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"

RESTORED = {"epoch", "state_dict", "hyper_parameters", "callbacks", "optimizer_states", "loops"}
"""What Lightning restores a training from, and what says whose it is."""


class WholeCheckpoints(CheckpointIO):
    """Writes a checkpoint beside the old one and then puts it in its place.

    Lightning's own way goes through ``TMPDIR``, and where that is on another file system it copies
    onto the good file: a kill or a full disk in that moment lost all epochs.

    Args:
        previous: File name by that of the checkpoint: where the one before is kept.
    """

    def __init__(self, previous: dict[str, str]) -> None:
        self.previous = previous

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint."""
        path = Path(path)
        before = self.previous.get(path.name)
        write_saved(path, checkpoint, previous=path.with_name(before) if before else None)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint without pickle's trust, to the CPU."""
        return read_saved(path, {"state_dict"})

    def remove_checkpoint(self, path: str | Path) -> None:
        """Nothing: our checkpoints take each other's place, and a path in a checkpoint that came
        from elsewhere may be any."""


def resume_point(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """The checkpoint to go on from, and a word to the user where it is not the one meant.

    Without the weights of the best epoch a training cannot end as if nothing had been: then it
    begins anew.

    Args:
        settings: The hyperparameters that the checkpoints must have.

    Returns:
        ``last.ckpt``, into whose place ``previous.ckpt`` comes where it is damaged; None for the
        start.

    Raises:
        RunError: If one of them is another training's.
    """
    last, previous, best = (folder / name for name in (LAST, PREVIOUS, BEST))
    there = [path for path in (last, previous) if path.exists()]
    if not there:
        return None
    try:
        load_checkpoint(best)
        _read(best, {"epoch", "hyper_parameters"}, settings)
    except (FileNotFoundError, ValueError) as error:
        say(f"{error}; {folder.name} is trained again from its start")
        return None
    for path in there:
        try:
            _follow(path, _read(path, RESTORED, settings))
        except ValueError as error:
            say(str(error))
            continue
        if path == previous:
            say(f"going on from {previous}, an epoch earlier")
            previous.replace(last)
        return last
    say(f"{folder.name} is trained again from its start")
    return None


def _read(path: Path, keys: set[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint of a training with these settings.

    Raises:
        ValueError: If it is damaged.
        RunError: If it is whole, and another training's.
    """
    saved = read_saved(path, keys)
    theirs = saved["hyper_parameters"]
    if not isinstance(theirs, dict) or not isinstance(saved["epoch"], int):
        raise ValueError(f"{path} is damaged")
    # An older version may lack a setting.
    other = [key for key, value in settings.items() if _differ(theirs.get(key, value), value)]
    if other:
        raise RunError(
            f"{path} is of a training with another {', '.join(other)}; put back the run's own, or "
            "overwrite the model"
        )
    return saved


def _differ(theirs: Any, ours: Any) -> bool:
    try:
        return bool(theirs != ours)
    except (RuntimeError, ValueError):  # of a tensor that somebody put there
        return True


def _follow(path: Path, saved: dict[str, Any]) -> None:
    """Let a checkpoint's callbacks find their files in a folder that was moved or copied.

    Lightning keeps absolute paths: elsewhere it would forget which epoch was the best so far.
    """
    here = str(path.parent.resolve())
    try:
        there = {state["dirpath"] for state in saved["callbacks"].values() if "dirpath" in state}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if there == {here}:
        return

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {moved(k): moved(v) for k, v in value.items()}
        if isinstance(value, str):
            for old in there:
                if value == old or value.startswith(old + os.sep):
                    return here + value[len(old) :]
        return value

    saved["callbacks"] = {key: moved(state) for key, state in saved["callbacks"].items()}
    write_saved(path, saved)
