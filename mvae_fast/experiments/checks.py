"""What can be wrong with a run, found before it starts."""

import warnings

import torch

from mvae_fast.data import MultimodalDataset, Splits
from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.devices import emulates_bf16, resolve_device
from mvae_fast.experiments.usage import quiet_lightning
from mvae_fast.vae import MVAE, build_mvae

CHECKED_AT_ONCE = 1000
"""Rows: 50 megabytes of CelebA's images."""


def check_data(model: MVAE, data: MultimodalDataset) -> None:
    """Raise ValueError unless a model takes each row: a label that it lacks may be in any."""
    for start in range(0, len(data), CHECKED_AT_ONCE):
        try:
            model.prepare(*data[start : start + CHECKED_AT_ONCE])
        except TypeError as error:
            raise ValueError(str(error)) from error


def check_models(config: TrainConfig, splits: Splits) -> None:
    """Build every model of a run, and give it a row of each split and one of them all rows.

    Warns where the annealing is longer than the run: the objective is then nowhere the one that is
    meant, which a loss does not show. Also where bfloat16 makes the run slower.

    Raises:
        ValueError: If a model's description is faulty or does not fit the data, the precision is
            unknown, or the device is not there.
    """
    import lightning  # takes seconds, which `mvae-fast evaluate` saves
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    device = resolve_device(config.device)
    try:
        with quiet_lightning():
            trainer = lightning.Trainer(
                accelerator=device.type,
                devices=1,
                precision=config.precision,  # type: ignore[arg-type]
                logger=False,
            )
    except (ImportError, ValueError, MisconfigurationException) as error:
        raise ValueError(f"precision must be one that is there: {error}") from error
    if trainer.precision.startswith("bf16") and emulates_bf16(device):
        warnings.warn(
            f"precision is {config.precision!r} on a CPU without bf16 instructions: PyTorch "
            "emulates them in encoders and decoders, and an epoch takes longer than with 32-true; "
            "remedy: precision=32-true",
            stacklevel=2,
        )
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
        try:
            model = build_mvae(config.model(name)).eval()
            with torch.no_grad():
                for part in splits:
                    model.loss(*part[:1])
        except (TypeError, OverflowError, RuntimeError) as error:
            raise ValueError(f"{config.dataset}: {error}") from error
    for part in splits:  # the modalities are those of all models
        try:
            check_data(model, part)
        except ValueError as error:
            raise ValueError(f"{config.dataset}: {error}") from error
