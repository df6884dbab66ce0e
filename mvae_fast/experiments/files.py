"""Files that are whole or not there, and the folders for them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["make_folder", "write_json", "write_text"]


def make_folder(path: str | Path, name: str) -> Path:
    """Make a folder to write to, unless it is there.

    Args:
        path: of the folder.
        name: of the argument that it came from, for the message.

    Returns:
        The path.

    Raises:
        ValueError: if there can be no such folder, for example because a file is in its place.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{name} must be a folder, got {path}: {error.strerror}") from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a process killed at any moment leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    unfinished.write_text(text)
    unfinished.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, as `write_text` does.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"b": 1})
        ...     print((Path(folder) / "a.json").read_text())
        {
          "b": 1
        }
    """
    write_text(path, json.dumps(content, indent=2))
