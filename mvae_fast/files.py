"""A file that is whole or not there."""

import os
import shutil
import uuid
from pathlib import Path


def write_bytes(path: Path, content: bytes | memoryview, *, previous: Path | None = None) -> None:
    """Write a file so that a kill or a full disk at any moment leaves the old content or the new.

    The new content is written beside the old one, to one and the same file system, and takes its
    place only when the disk has all of it. What a kill leaves half written ends in ``.part``.

    Args:
        path: File to write; a link is replaced.
        content: All of it.
        previous: Where the old content is kept.

    Raises:
        OSError: If it cannot be written; the file is as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "new" / "a.txt"
        ...     write_bytes(path, b"one")
        ...     print(path.read_text(), len(list(path.parent.iterdir())))
        one 1
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, unfinished)
            if previous is not None:
                path.replace(previous)
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            # What write() raises on a full disk does not know of which file.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
