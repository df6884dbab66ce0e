"""Training one model, interruptibly."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from mvae_fast.data import Splits, batches
from mvae_fast.experiments.config import MODELS, TrainConfig
from mvae_fast.experiments.module import MVAEModule
from mvae_fast.experiments.progress import EpochBar
from mvae_fast.experiments.quiet import quiet_lightning
from mvae_fast.vae import MVAE, save_mvae

__all__ = ["Trained", "train_model"]


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        model: with the weights of its best epoch.
        epoch: the epoch, counted from 1, that the validation split chose.
        seconds: wall time of this call's training.
    """

    model: MVAE
    epoch: int
    seconds: float


def train_model(name: str, config: TrainConfig, splits: Splits) -> Trained:
    """Train one model; keep the checkpoint that is best on the validation split.

    Under ``<out>/<name>`` it writes ``best.ckpt``, ``last.ckpt`` (every epoch), TensorBoard and CSV
    logs, and the chosen model as ``model.pt`` (`load_mvae`). With ``config.resume`` it goes on from
    ``last.ckpt``, with the result that an uninterrupted run has.

    Args:
        name: of the model, one of `MODELS`.
        config: settings of the run.
        splits: the data; the test split is not touched.

    Returns:
        The trained model.

    Raises:
        KeyboardInterrupt: if the user stopped it.
    """
    folder = config.folder / name
    last = folder / "last.ckpt"
    resume = config.resume and last.exists()
    if not resume and folder.exists():
        shutil.rmtree(folder)
    best = ModelCheckpoint(
        folder,
        filename="best",
        monitor="val/elbo_sum",
        save_weights_only=True,
        enable_version_counter=False,
    )
    # After the validation's, so that it knows which epoch is best so far.
    latest = ModelCheckpoint(
        folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    start = time.perf_counter()
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=config.epochs,
            callbacks=[EpochBar(MODELS[name]), best, latest],
            logger=[TensorBoardLogger(folder, name="tensorboard"), CSVLogger(folder, name="csv")],
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = MVAEModule(
            model=config.model(name),
            lr=config.lr,
            annealing_epochs=config.annealing,
            seed=config.seed,
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(
                module,
                batches(splits.train, config.batch_size, seed=config.seed),
                batches(splits.validation, len(splits.validation)),
                ckpt_path=str(last) if resume else None,
            )
        except SystemExit as exit:
            if not trainer.interrupted:
                raise
            # Lightning turns Ctrl-C into an exit and then ignores further ones.
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from exit
    chosen = _load(folder / "best.ckpt")
    module.load_state_dict(chosen["state_dict"])
    model = module.model.cpu().eval()
    save_mvae(model, folder / "model.pt")
    return Trained(model, chosen["epoch"] + 1, time.perf_counter() - start)


def _load(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint
