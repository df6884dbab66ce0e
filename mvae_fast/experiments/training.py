"""Training one model, interruptibly."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from mvae_fast.data import Splits, batches
from mvae_fast.experiments.config import TrainConfig, title
from mvae_fast.experiments.devices import resolve_device
from mvae_fast.experiments.files import write_json
from mvae_fast.experiments.folder import discard
from mvae_fast.experiments.module import MVAEModule
from mvae_fast.experiments.progress import EpochBar
from mvae_fast.experiments.quiet import quiet_lightning
from mvae_fast.vae import save_mvae

__all__ = ["Trained", "finished", "train_model"]

VALIDATION_BATCH = 1000
"""Rows a batch in validation."""


@dataclass(frozen=True)
class Trained:
    """What became of a training.

    Attributes:
        epoch: the epoch, counted from 1, whose weights were kept.
        seconds: wall time of the training, that before interruptions included.
    """

    epoch: int
    seconds: float


def finished(name: str, config: TrainConfig) -> Trained | None:
    """What an earlier `train_model` left if it came to its end, else None."""
    path = config.folder / name / "finished.json"
    return Trained(**json.loads(path.read_text())) if path.exists() else None


def train_model(name: str, config: TrainConfig, splits: Splits) -> Trained:
    """Train one model; keep the checkpoint that is best on the validation split.

    Under ``<out>/<name>`` it writes ``best.ckpt``, ``last.ckpt`` (every epoch), TensorBoard and CSV
    logs, the chosen model as ``model.pt`` (`load_mvae`) and at last ``finished.json``. With
    ``config.resume`` it goes on from ``last.ckpt``, with the result that an uninterrupted run has,
    and does nothing where all is done.

    Args:
        name: of the model, one of ``config.models``.
        config: settings of the run.
        splits: the data; the test split is not touched.

    Returns:
        What became of it; the model is in ``model.pt``.

    Raises:
        KeyboardInterrupt: if the user stopped it.
    """
    folder = config.folder / name
    if config.resume and (done := finished(name, config)):
        return done
    last = folder / "last.ckpt"
    resume = config.resume and last.exists()
    if resume:
        _follow(last)
    else:
        discard(folder)
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
    timer = Timer()
    device = resolve_device(config.device)
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            max_epochs=config.epochs,
            precision=config.precision,  # type: ignore[arg-type]  # Lightning checks it
            callbacks=[EpochBar(title(name)), timer, best, latest],
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
            annealing_schedule=config.annealing_schedule,
            optimizer=config.optimizer,
            validation_samples=config.validation_samples,
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(
                module,
                batches(splits.train, config.batch_size, seed=config.seed),
                batches(splits.validation, VALIDATION_BATCH),
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
    save_mvae(module.model.cpu().eval(), folder / "model.pt")
    trained = Trained(chosen["epoch"] + 1, timer.time_elapsed("train"))
    write_json(folder / "finished.json", asdict(trained))
    return trained


def _follow(checkpoint: Path) -> None:
    """Let a checkpoint's callbacks find their files in a folder that was moved or copied.

    Lightning keeps absolute paths: elsewhere it would forget which epoch was the best so far.
    """
    saved = _load(checkpoint)
    here = str(checkpoint.parent.resolve())
    there = {state["dirpath"] for state in saved["callbacks"].values() if "dirpath" in state}
    if there == {here}:
        return

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {moved(k): moved(v) for k, v in value.items()}
        if isinstance(value, str):
            for old in there:
                if value == old or value.startswith(old + os.sep):
                    return here + value[len(old) :]
        return value

    saved["callbacks"] = {key: moved(state) for key, state in saved["callbacks"].items()}
    unfinished = checkpoint.with_suffix(".part")
    torch.save(saved, unfinished)
    unfinished.replace(checkpoint)


def _load(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint
