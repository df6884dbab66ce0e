"""Settings of runs on data of a user's own."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mvae_fast.data import UserData, read_data
from mvae_fast.data.own.partition import chosen_split, partition
from mvae_fast.data.own.userdata import modality_name
from mvae_fast.experiments.config import changed, check_types, layers
from mvae_fast.vae import MVAE

STEPS = 4000
"""Steps of a training on a small file. On 1200 rows of five modalities 720 steps, 60 epochs, left
imputed values with twice their true standard deviation, and 3600 did not."""

MOST_EPOCHS = 300
"""Epochs of a training on a very small file."""


def named_data(files: Iterable[str | Path], settings: Iterable[str]) -> str | None:
    """The data of a user's own that files or settings name, as `own_settings` takes them."""
    return changed({"data": None}, files, settings)["data"]


def own_settings(
    path: str,
    files: Iterable[str | Path] = (),
    settings: Iterable[str] = (),
    split: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Settings for data of a user's own: those of ``configs/own.yaml``, then the modalities as they
    look, unless a file describes them, then files and settings.

    Args:
        path: The data.
        files, settings: As of `mvae_fast.experiments.config.configured`.
        split: As of `mvae_fast.data.UserData.splits`; None: that of files and settings.

    Returns:
        The settings, and what was found, a line a modality.

    Raises:
        ValueError: If the data, a file or a setting cannot be used; it is named.
    """
    base = {
        **layers("own"),
        "data": os.path.abspath(path),
        "dataset": modality_name(Path(path).resolve().stem) or "data",
        "split": {},
    }
    given = changed(base, files)
    lines: list[str] = []
    if "modalities" not in given:
        rows = read_data(path)
        split = changed(base, files, settings)["split"] if split is None else split
        base["split"] = split = chosen_split(rows.columns, split)
        base["modalities"] = rows.modalities(split)
        train, *_ = partition(rows.columns, len(rows), split)
        base["epochs"] = epochs(len(train), base["batch_size"], base["epochs"])
        lines = found(rows, base["modalities"], split)
    values = changed(base, files, settings)
    values["data"] = os.path.abspath(path)
    check_types(values)
    return values, lines


def epochs(rows: int, batch_size: int, at_least: int) -> int:
    """Epochs with `STEPS` steps, where an epoch has few.

    Example:
        >>> epochs(1200, 100, 60), epochs(60_000, 100, 60), epochs(50, 100, 60)
        (300, 60, 300)
    """
    return max(at_least, min(MOST_EPOCHS, STEPS // max(1, rows // batch_size)))


def found(
    data: UserData, modalities: Mapping[str, Any], split: Mapping[str, Any] | None
) -> list[str]:
    """What was found in data, a line a modality and a line for each column that is left out."""
    left = data.left_out(split)
    return [
        *data.summary(modalities),
        *(f"{column} is left out: {why}" for column, why in left.items()),
    ]


def described(model: MVAE) -> dict[str, Any]:
    """The descriptions of a model's modalities, by which a file of a user's own is read.

    Raises:
        ValueError: If the model has none, because it was made by hand.
    """
    if model.config is None:
        raise ValueError("the model has no description, as build_mvae gives; ask it from Python")
    modalities: dict[str, Any] = model.config["modalities"]
    return modalities
