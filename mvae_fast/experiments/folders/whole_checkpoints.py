"""Lightning's checkpoints, written so that one of them is always whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO

from mvae_fast.experiments.folders.files import write_saved
from mvae_fast.vae.builders.build import read_saved

__all__ = ["WholeCheckpoints"]


class WholeCheckpoints(CheckpointIO):
    """Writes a checkpoint beside the old one and then puts it in its place.

    Lightning's own way goes through ``TMPDIR``, and where that is on another file system it copies
    onto the good file: a kill or a full disk in that moment lost all epochs.

    Args:
        previous: file name by that of the checkpoint: where the one before is kept.
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
