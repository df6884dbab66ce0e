"""What can be wrong with a run, found before it starts."""

from __future__ import annotations

import warnings

import lightning
import torch

from mvae_fast.data import Splits
from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.devices import resolve_device
from mvae_fast.experiments.quiet import quiet_lightning
from mvae_fast.vae import build_mvae

__all__ = ["check_models"]


def check_models(config: TrainConfig, splits: Splits) -> None:
    """Build every model of a run and give it a row of each split.

    Warns where the annealing is longer than the run: the objective is then nowhere the one that is
    meant, which a loss does not show.

    Args:
        config: settings of the run.
        splits: its data.

    Raises:
        ValueError: if a model's description is faulty or does not fit the data, the precision is
            unknown, or the device is not there.
    """
    with quiet_lightning():
        resolve_device(config.device)
        lightning.Trainer(devices=1, precision=config.precision, logger=False)  # type: ignore[arg-type]
    served = list(splits.train.arrays)
    if set(served) != set(config.modalities):
        raise ValueError(
            f"modalities must be those of {config.dataset}, {served}, got {list(config.modalities)}"
        )
    if config.annealing > config.epochs:
        warnings.warn(
            f"annealing_epochs is {config.annealing} and epochs {config.epochs}: the KL term's "
            f"weight ends at {config.epochs / config.annealing:.2g}, not 1; set annealing_epochs, "
            "too (null: a third of the epochs)",
            stacklevel=2,
        )
    for name in config.models:
        model = build_mvae(config.model(name)).eval()
        for part in splits:
            try:
                with torch.no_grad():
                    model.loss(*part[:1])
            except TypeError as error:
                raise ValueError(f"{config.dataset}: {error}") from error
