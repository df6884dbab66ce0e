"""Reading a file or folder of a user's own, by its suffix."""

import os
from pathlib import Path

from mvae_fast.data.own.archives import read_archive
from mvae_fast.data.own.folders import read_folder
from mvae_fast.data.own.tables import TABLES, read_table
from mvae_fast.data.own.userdata import UserData


def read_data(path: str | os.PathLike[str]) -> UserData:
    """Read data of your own.

    * ``.npz``: an array ``(n, ...)`` is a modality. A boolean array ``NAME_mask`` says which rows
      of ``NAME`` are there; so does NaN.
    * ``.csv``, ``.parquet``: a column is a modality; columns of numbers ``gene_0``, ``gene_1`` or
      ``gene.A``, ``gene.B`` are one together. An empty cell, NA or NaN is missing. Rows are counted
      from 1.
    * A folder: of a table ``data.csv`` with a column of names of image files; of a folder for each
      class, which gives ``image`` and ``label``; or of a folder for each modality, where names of
      files are the rows.

    Args:
        path: The file or folder.

    Returns:
        What is there. Its `UserData.modalities` describe it, its `UserData.splits` serve it.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is of another kind, or damaged; column and row, or file, are named.
        ImportError: If a package is missing: extras ``images`` and ``tables``.
    """
    path = Path(path)
    if path.is_dir():
        return UserData(path, read_folder(path))
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix == ".npz":
        return UserData(path, read_archive(path))
    if path.suffix in TABLES:
        return UserData(path, read_table(path))
    raise ValueError(
        f"{path}: got the suffix {path.suffix!r}, expected .npz, {', '.join(TABLES)} or a folder"
    )
