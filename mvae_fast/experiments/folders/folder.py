"""The folder of a run, and the recipe in it that says what its models are made of."""

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.folders.files import make_folder, read_yaml, write_text
from mvae_fast.experiments.folders.lock import locked

MARK = ".mvae_fast"
"""The file that makes the folder of a model one of ours."""

HEADER = "# Written by mvae-fast train: the settings of this run.\n"
"""The mark of a ``config.yaml``."""

RESULTS = ("table.csv", "table.json", "table.md", "samples.png")
"""What a run writes beside its ``config.yaml``."""

OWN_FOLDERS = re.compile(r"(csv|tensorboard)(/version_\d+)?")
OWN_FILES = re.compile(
    r"(\.mvae_fast|(last|previous|best)\.ckpt|model\.pt|finished\.json|evaluation\.json"
    r"|csv/version_\d+/(metrics\.csv|hparams\.yaml)"
    r"|tensorboard/version_\d+/(events\.out\.tfevents\.[^/]+|hparams\.yaml))(\.[0-9a-f]+\.part)?"
)
"""What a run writes into the folder of a model, by its path there; ``.part`` is what a kill leaves,
by `mvae_fast.files.write_bytes`."""


def check_folder(config: TrainConfig) -> dict[str, Any]:
    """The recipe for the folder of a run, if the run may have it; nothing is changed.

    Models that the folder holds, begun or finished, stay what the recipe says: a run that would
    keep some of them and has other settings is refused. Models that are to be trained are replaced
    with ``config.overwrite`` only, and only where each file in their folder is one that a run
    writes.

    Raises:
        ValueError: If the folder holds models to be trained and neither ``resume`` nor
            ``overwrite`` is set, if it keeps models of other settings, its recipe is damaged, or
            something that no run has written is in the way; it is named.
    """
    path = config.folder / "config.yaml"
    recipe = config.recipe()
    for name in config.models:
        _check_model(config.folder / name, replace=config.overwrite)
    begun = _begun(config)
    if begun and not (config.resume or config.overwrite):
        raise ValueError(
            f"{config.folder} holds {', '.join(begun)} of an earlier run: resume goes on with it, "
            "overwrite replaces it, and out names another folder"
        )
    removed = [] if config.resume else begun
    if not path.exists():
        if foreign := [name for name in RESULTS if os.path.lexists(config.folder / name)]:
            raise ValueError(
                f"{config.folder} holds {', '.join(foreign)} and no config.yaml of a run, which "
                "would write there; name another out, or move them away"
            )
        return recipe
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
    if recipe != saved and not path.read_text().startswith(HEADER):
        raise ValueError(
            f"{path} has other settings and was not written by a run, whose own would take its "
            "place; name another out, or move it away"
        )
    return recipe


def open_folder(config: TrainConfig) -> None:
    """Make the folder of a run and write its recipe there, ``config.yaml``.

    Raises:
        ValueError: As `check_folder` does, or if there can be no such folder.
        UsageError: If another run writes to one of its models.
    """
    recipe = check_folder(config)
    make_folder(config.folder, "out")
    if not config.resume:
        for name in _begun(config):
            with locked(config.folder, name):
                discard(config.folder / name)
    path = config.folder / "config.yaml"
    if not path.exists() or read_recipe(path) != recipe:
        write_text(path, HEADER + yaml.safe_dump(recipe, sort_keys=False))


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a ``config.yaml`` that `open_folder` wrote.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        recipe = read_yaml(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    known = {f.name for f in fields(TrainConfig)}
    needed = known - set(TrainConfig.defaults())
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is damaged: it is no mapping")
    if missing := needed - set(recipe):
        raise ValueError(f"{path} is damaged, or not of a run: it lacks {sorted(missing)}")
    if unknown := sorted(str(key) for key in recipe if key not in known):
        raise ValueError(f"{path} is damaged, or of a newer version: it has {unknown}")
    try:
        TrainConfig(**recipe)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return recipe


def mark(folder: Path) -> None:
    """Make the folder of a model, one that `discard` may empty, without what a kill left in it.

    Raises:
        ValueError: If it is there and somebody else's.
    """
    _check_model(folder, replace=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    for unfinished in folder.glob("*.part"):
        if _own(unfinished.name):
            unfinished.unlink()


def discard(folder: Path) -> None:
    """Remove what a run wrote into a model's folder, file by file, and the folder if that is all.

    First what says that it is finished, so that a kill meanwhile leaves one that is not, and last
    the mark. Links are not followed.
    """
    if foreign := _foreign(folder):
        raise ValueError(f"{folder} holds what no run has written: {', '.join(foreign)}")
    (folder / "finished.json").unlink(missing_ok=True)
    for root, _, files in os.walk(folder, topdown=False):
        for name in sorted(files, reverse=True):  # the mark is the first of its folder
            Path(root, name).unlink()
        Path(root).rmdir()


def _begun(config: TrainConfig) -> list[str]:
    """The models of a run that its folder holds."""
    folders = [(name, config.folder / name) for name in config.models]
    return [name for name, folder in folders if folder.exists() and any(folder.iterdir())]


def _check_model(folder: Path, replace: bool) -> None:
    """Raise unless a model's folder is not there, is empty, or is one of ours; to ``replace`` what
    is in it, nothing else may be there."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(
            f"{folder} must be the folder of a model, and is a "
            f"{'link' if folder.is_symlink() else 'file'}; move it away, or name another out"
        )
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / MARK).is_file():
        there = sorted(path.name for path in folder.iterdir())
        raise ValueError(
            f"{folder} is not of a run and holds {', '.join(there[:5])}; move it away, or name "
            f"another out (a run of an older version: make an empty file {MARK} in it)"
        )
    foreign = _foreign(folder)
    if not replace:  # strangers may stay, unless they are where the run writes to
        foreign = [name for name in foreign if (folder / name).is_symlink() or _own(name)]
    if foreign:
        raise ValueError(
            f"{folder} holds what no run has written: {', '.join(foreign[:5])}; move it away, or "
            "name another out"
        )


def _foreign(folder: Path) -> list[str]:
    """What is in a model's folder and not of a run, by its path there."""
    found = []
    for root, folders, files in os.walk(folder):
        for names, pattern in ((folders, OWN_FOLDERS), (files, OWN_FILES)):
            for name in list(names):
                path = Path(root, name)
                inner = path.relative_to(folder).as_posix()
                if path.is_symlink() or not pattern.fullmatch(inner):
                    found.append(inner)
                    names.remove(name)  # there is no need to look into it
    return sorted(found)


def _own(inner: str) -> bool:
    return bool(OWN_FOLDERS.fullmatch(inner) or OWN_FILES.fullmatch(inner))
