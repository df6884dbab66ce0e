"""The folder of a run, and the recipe in it that says what its models are made of."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.files import make_folder, write_text

__all__ = ["discard", "open_folder", "read_recipe"]


def open_folder(config: TrainConfig) -> None:
    """Make the folder of a run and write its recipe there, ``config.yaml``.

    Models that the folder holds, begun or finished, stay what the recipe says: a run that would
    keep some of them and has other settings is refused. Models that are to be trained are removed
    with ``config.overwrite`` only.

    Args:
        config: settings of the run.

    Raises:
        ValueError: if the folder holds models to be trained and neither ``resume`` nor
            ``overwrite`` is set, if it keeps models of other settings, its recipe is damaged, or
            there can be no such folder.
    """
    path = config.folder / "config.yaml"
    recipe = config.recipe()
    begun = [name for name in config.models if (config.folder / name).exists()]
    if begun and not (config.resume or config.overwrite):
        raise ValueError(
            f"{config.folder} holds {', '.join(begun)} of an earlier run: resume goes on with it, "
            "overwrite replaces it, and out names another folder"
        )
    removed = [] if config.resume else begun
    if path.exists():
        saved = read_recipe(path)
        kept = {
            name: flow
            for name, flow in saved["flows"].items()
            if (config.folder / name).is_dir() and name not in removed
        }
        differences = config.differences({**saved, "flows": kept}) if kept else []
        if differences:
            raise ValueError(
                f"{config.folder} holds {', '.join(kept)} of a run with other settings: "
                f"{'; '.join(differences)}; choose another folder, or overwrite all its models"
            )
        recipe["flows"] = {**recipe["flows"], **kept}
    for name in removed:
        discard(config.folder / name)
    text = yaml.safe_dump(recipe, sort_keys=False)
    make_folder(config.folder, "out")
    if not path.exists() or path.read_text() != text:
        write_text(path, text)


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a ``config.yaml`` that `open_folder` wrote.

    Args:
        path: the file.

    Returns:
        `TrainConfig.recipe` of the run.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        recipe = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    needed = {f.name for f in fields(TrainConfig)} - set(TrainConfig.defaults())
    if not isinstance(recipe, dict) or (missing := needed - set(recipe)):
        what = f"it lacks {sorted(missing)}" if isinstance(recipe, dict) else "it is no mapping"
        raise ValueError(f"{path} is damaged: {what}")
    for name in ("flows", "modalities"):
        if not isinstance(recipe[name], dict):
            raise ValueError(f"{path} is damaged: {name} is no mapping")
    return recipe


def discard(folder: Path) -> None:
    """Remove a model's folder, so that a kill meanwhile does not leave one that looks finished."""
    (folder / "finished.json").unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
