"""Loads the libraries that the installation compiled, or says why there are none."""

import struct
from collections.abc import Callable
from pathlib import Path

#: Where the build leaves the libraries and the reasons for those that failed.
PACKAGE = Path(__file__).parent.parent


def load(
    loader: Callable[[Path], object],
    library: str,
    log: str,
    title: str,
    needs: str,
    package: Path = PACKAGE,
) -> str | None:
    """Load a library, which registers its ops.

    Args:
        loader: Loads a file.
        library: Its name, without the ending.
        log: The file in which the build says why it failed.
        title: What to call it in an error.
        needs: What the build takes, for the remedy.
        package: Where both are.

    Returns:
        None, or the reason, with the remedy, when it cannot be loaded.
    """
    files = sorted(package.glob(f"{library}.*so"))
    if not files:
        reason = package / log
        if reason.exists():
            # The build names what it lacked: a compiler, a torch, or what the compiler said.
            said = reason.read_text().strip()
            remedy = "," if "remedy:" in said else "; remedy: mend that"
            return f"{title} failed to build: {said}{remedy} and run `pip install .` again"
        return f"{title} is not built; remedy: have {needs} and run `pip install .` again"
    try:
        _check_whole(files[0])
        loader(files[0])
    except OSError as error:
        return (
            f"{title} {files[0].name} does not load: {error}; remedy: have torch >= 2.10 and run "
            "`pip install .` again"
        )
    return None


def _check_whole(library: Path) -> None:
    """Raise OSError for a library that was cut short: to load it would kill the process.

    Of an ELF file (Linux) all segments must be there; others are left to the loader.
    """
    with library.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or not head.startswith(b"\x7fELF\x02\x01"):  # 64 bits, little-endian
            return
        (table,), (count,) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<H", head, 56)
        file.seek(table)
        headers = file.read(56 * count)
    whole = headers[: len(headers) // 56 * 56]
    ends = [offset + length for offset, length in struct.iter_unpack("<8xQ16xQ16x", whole)]
    if library.stat().st_size < max(ends, default=0) or len(headers) < 56 * count:
        raise OSError("the file was cut short")
