"""The settings of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

__all__ = ["MODELS", "TrainConfig"]

#: Models by the name that ``--models`` takes, with the paper's name for them.
MODELS: dict[str, str] = {"mvae": "MVAE", "mvae_cnf": "MVAE-CNF"}


def _option(help: str, **default: Any) -> Any:
    return field(metadata={"help": help}, **default)


@dataclass(kw_only=True)
class TrainConfig:
    """What ``mvae-fast train`` does; the values of a data set's own run are in
    ``configs/<dataset>.yaml``.

    Raises:
        ValueError: if a value cannot be used.

    Example:
        >>> config = TrainConfig.load("digits")
        >>> config.epochs, config.annealing, config.latent_dim
        (40, 13, 128)
    """

    dataset: str = _option("data set")
    models: list[str] = _option(f"models to train, of {', '.join(MODELS)}")
    seed: int = _option("seed of initialisation, shuffling and noise")
    epochs: int = _option("passes over the training split")
    annealing_epochs: int | None = _option(
        "epochs over which the KL term's weight rises linearly to 1; default: a third of them"
    )
    batch_size: int = _option("rows a mini-batch")
    lr: float = _option("Adam's learning rate")
    latent_dim: int = _option("latent size D")
    T: float = _option("integration time of the CNF")
    n_steps: int = _option("Euler steps from 0 to T")
    n_random_subsets: int = _option("random subsets of modalities drawn for each mini-batch")
    modalities: dict[str, Any] = _option(
        "modalities by name, as mvae_fast.vae.build_mvae takes them"
    )
    flow: dict[str, Any] = _option(
        "the flow of mvae_cnf, as build_mvae takes it, but for T and n_steps"
    )
    out: str | None = _option(
        "folder for everything written; default: runs/<dataset>", default=None
    )
    data_dir: str | None = _option("folder of data sets that are read from files", default=None)
    threads: int | None = _option("CPU threads; null: PyTorch's choice", default=None)
    resume: bool = _option(
        "continue a run that was interrupted, from its last epoch", default=False
    )

    def __post_init__(self) -> None:
        if unknown := set(self.models) - set(MODELS):
            raise ValueError(f"models must be among {list(MODELS)}, got {sorted(unknown)}")
        if not self.models or len(set(self.models)) < len(self.models):
            raise ValueError(f"models must name at least one model, each once, got {self.models}")
        for name in ("epochs", "batch_size", "lr", "latent_dim", "T", "n_steps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be positive, got {self.threads}")
        for name in ("seed", "annealing_epochs", "n_random_subsets"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @classmethod
    def load(cls, dataset: str, **changes: Any) -> TrainConfig:
        """The settings of a data set's own run, with changes.

        Args:
            dataset: data set whose packaged configuration is read.
            changes: fields to replace.

        Returns:
            The settings.
        """
        return cls(**{**cls.packaged(dataset), **changes})

    @staticmethod
    def packaged(dataset: str) -> dict[str, Any]:
        """The packaged configuration of a data set."""
        path = resources.files("mvae_fast.experiments") / "configs" / f"{dataset}.yaml"
        values: dict[str, Any] = yaml.safe_load(path.read_text())
        return values

    @property
    def annealing(self) -> int:
        """Epochs of annealing."""
        return self.epochs // 3 if self.annealing_epochs is None else self.annealing_epochs

    @property
    def folder(self) -> Path:
        """Folder for everything written."""
        return Path(self.out or f"runs/{self.dataset}")

    def model(self, name: str) -> dict[str, Any]:
        """The description of a model, for `build_mvae`."""
        flow = {**self.flow, "T": self.T, "n_steps": self.n_steps} if name == "mvae_cnf" else None
        return {
            "latent_dim": self.latent_dim,
            "modalities": self.modalities,
            "flow": flow,
            "n_random_subsets": self.n_random_subsets,
        }

    def recipe(self) -> dict[str, Any]:
        """Everything that decides the numbers of a run: all but where and how it runs."""
        how = {"out", "data_dir", "threads", "resume"}
        return {key: value for key, value in asdict(self).items() if key not in how}

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """How a saved `recipe` differs from this one, a line each; which models are trained may
        differ."""
        mine = self.recipe()
        return [
            f"{f.name}: {saved.get(f.name)!r} there, {mine[f.name]!r} here"
            for f in fields(self)
            if f.name in mine and f.name != "models" and saved.get(f.name) != mine[f.name]
        ]
