"""Where data sets lie, and how files are found, verified and downloaded."""

import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile

from mvae_fast.checks import boolean
from mvae_fast.data.optional import needed

VARIABLE = "MVAE_FAST_DATA"

#: The folder of the data sets; None for the default of `data_root`.
DataDir = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Source:
    """The files of a data set and where they come from.

    Checksums are ``"algorithm:hex"``. Those of the uncompressed content are preferred, because a
    file that somebody compressed again is still the same data.

    Args:
        name: Of the data set.
        files: Names, without ``.gz``.
        homepage: Where a person finds them.
        folders: Names of the data set's folder in other libraries.
        subfolders: Of each of these folders that are looked through, too.
        url: Folder of a mirror that has every file as ``<name>.gz``, or, with ``archive``, of the
            archive; None: not downloadable.
        archive: Name of a zip archive whose members are ``gzip/<name>.gz``.
        content: Checksums by file, of the uncompressed content.
        delivered: Checksums by file (or archive), as the mirror delivers it.
    """

    name: str
    files: tuple[str, ...]
    homepage: str
    folders: tuple[str, ...] = ()
    subfolders: tuple[str, ...] = ("raw",)
    url: str | None = None
    archive: str | None = None
    content: dict[str, str] = field(default_factory=dict)
    delivered: dict[str, str] = field(default_factory=dict)


def data_root(data_dir: DataDir = None) -> Path:
    """The folder that holds the data sets; it need not exist.

    Args:
        data_dir: The folder; None: that of the environment variable ``MVAE_FAST_DATA``, else the
            user's cache folder.

    Example:
        >>> data_root("data").name
        'data'
    """
    if data_dir is not None:
        return Path(data_dir).expanduser()
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    pooch = needed("pooch", "the default folder of data sets", "train")
    return Path(pooch.os_cache("mvae_fast"))


def find_files(
    source: Source, data_dir: DataDir = None, *, download: bool = False
) -> dict[str, Path]:
    """The path of every file of a data set, plain or with ``.gz``.

    Looked through, in this order, are the folder of the data set in `data_root`, its folder in
    other libraries' naming, and the root itself, each with its subfolder ``raw``. What is missing
    is then downloaded into the folder of the data set, if asked for.

    Raises:
        FileNotFoundError: If files are missing and not to be, or cannot be, downloaded.
        ConnectionError: If a download fails.
        ValueError: If a downloaded file is not the official one.
    """
    download = boolean("download", download)
    root = data_root(data_dir)
    bases = [*(root / name for name in (source.name, *source.folders)), root]
    folders = [base / below for base in bases for below in ("", *source.subfolders)]
    found = {name: _find(name, folders) for name in source.files}
    missing = [name for name, path in found.items() if path is None]
    if missing and download and source.url is not None:
        _download(source, missing, root / source.name)
        return find_files(source, data_dir)
    if missing:
        raise FileNotFoundError(_remedy(source, missing, folders))
    return {name: path for name, path in found.items() if path is not None}


def read_content(path: Path, largest: int) -> bytes:
    """The uncompressed content of a file, plain or with a name that ends in ``.gz``.

    Args:
        largest: Bytes that it may have; no more are unpacked.

    Raises:
        ValueError: If a ``.gz`` file is damaged, or the content larger.
    """
    content = read_start(path, largest + 1)
    if len(content) > largest:
        raise ValueError(f"{path} holds more than {largest} bytes, expected at most that")
    return content


def read_start(path: Path, size: int) -> bytes:
    """At most the first bytes of what `read_content` gives; no more are unpacked."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip file: {error}") from error


def verify_content(source: Source, name: str, path: Path, content: bytes) -> None:
    """Compare a file with the official checksums that `source` knows of it: that of the ``content``
    that `read_content` gave, or else, of a ``.gz`` file, that of the file at ``path``.
    """
    if name in source.content:
        expected, data = source.content[name], content
    elif name in source.delivered and path.suffix == ".gz":
        expected, data = source.delivered[name], path.read_bytes()
    else:
        return
    algorithm, _, hexadecimal = expected.partition(":")
    actual = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    if actual != hexadecimal:
        raise ValueError(
            f"{path} is not the official file of {source.name}: its {algorithm} is {actual}, "
            f"expected {hexadecimal}; replace or delete it"
        )


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    candidates = (folder / f"{name}{end}" for folder in folders for end in ("", ".gz"))
    return next((path for path in candidates if path.exists()), None)


def _remedy(source: Source, missing: Sequence[str], folders: Sequence[Path]) -> str:
    lines = [
        f"{source.name}: missing {', '.join(missing)} (plain or with .gz)",
        "looked in " + ", ".join(str(folder) for folder in folders),
        f"say where the data lie with --data-dir (data_dir=) or the variable {VARIABLE}",
    ]
    if source.url is not None:
        lines.append("or let them be downloaded with --download (download=True)")
    else:
        lines.append(f"they cannot be downloaded automatically: get them from {source.homepage}")
    return "; ".join(lines)


def _download(source: Source, missing: Sequence[str], folder: Path) -> None:
    if source.archive is None:
        for name in missing:
            _retrieve(source, f"{name}.gz", source.delivered.get(name), folder)
        return
    archive = _retrieve(source, source.archive, source.delivered.get(source.archive), folder)
    with ZipFile(archive) as members:
        for name in missing:
            part = folder / f"{name}.gz.part"
            member = members.getinfo(f"gzip/{name}.gz")
            # What is packed already grows by no packing: anything larger is made to fill a disk.
            if member.file_size > archive.stat().st_size:
                raise ValueError(
                    f"{archive}: {member.filename} unpacks to {member.file_size} bytes, more than "
                    "the archive has"
                )
            with members.open(member) as packed, part.open("wb") as file:
                shutil.copyfileobj(packed, file)
            part.replace(folder / f"{name}.gz")  # at once, so that a kill leaves no half file
    archive.unlink()


def _retrieve(source: Source, name: str, checksum: str | None, folder: Path) -> Path:
    pooch = needed("pooch", "a download", "train")
    url = f"{source.url}{name}"
    try:
        fetch = pooch.HTTPDownloader(progressbar=True, timeout=60)
        return Path(pooch.retrieve(url, checksum, fname=name, path=folder, downloader=fetch))
    except OSError as error:  # what requests raises for anything between here and the mirror
        raise ConnectionError(
            f"{url} could not be downloaded ({error}); get it from {source.homepage} by other "
            f"means and put it into {folder}"
        ) from error
