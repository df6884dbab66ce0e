"""Training one model, interruptibly."""

import math
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from mvae_fast.data import Splits, batches
from mvae_fast.experiments.config import TrainConfig, title
from mvae_fast.experiments.devices import resolve_device
from mvae_fast.experiments.folders.checkpoints import load_checkpoint
from mvae_fast.experiments.folders.files import read_json, write_json
from mvae_fast.experiments.folders.folder import mark
from mvae_fast.experiments.folders.lock import locked
from mvae_fast.experiments.folders.resuming import (
    BEST,
    LAST,
    PREVIOUS,
    WholeCheckpoints,
    resume_point,
)
from mvae_fast.experiments.module import EpochBar, MVAEModule, NotFiniteError
from mvae_fast.experiments.usage import RunError, quiet_lightning, say
from mvae_fast.vae import load_mvae, save_mvae
from mvae_fast.vae.builders.saved import read_saved

VALIDATION_BATCH = 1000
"""Rows a batch in validation."""


@dataclass(frozen=True)
class Trained:
    """What became of a training.

    Attributes:
        epoch: The epoch, counted from 1, whose weights were kept.
        seconds: Wall time of the training, that before interruptions included.
    """

    epoch: int
    seconds: float

    @classmethod
    def read(cls, path: Path) -> "Trained":
        """What ``finished.json`` says.

        Raises:
            ValueError: If it is damaged.
        """
        saved = read_json(path)
        if not isinstance(saved, dict) or set(saved) != {"epoch", "seconds"}:
            raise ValueError("it must hold epoch and seconds")
        epoch, seconds = saved["epoch"], saved["seconds"]
        if type(epoch) is not int or epoch < 1:
            raise ValueError(f"epoch must be a positive int, got {epoch!r:.50}")
        if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be a number that is not negative, got {seconds!r:.50}")
        return cls(epoch, seconds)


def finished(
    name: str, config: TrainConfig, tell: Callable[[str], None] | None = None
) -> Trained | None:
    """What an earlier `train_model` left if it came to its end and all of it can be read, else
    None; ``tell`` is told what cannot.
    """
    folder = config.folder / name
    path = folder / "finished.json"
    if not path.exists():
        return None
    try:
        trained = Trained.read(path)
        path = folder / "model.pt"
        if not path.exists():
            raise ValueError("it is not there")
        if load_mvae(path).config != config.model(name):
            raise ValueError("it is another model")
    except ValueError as error:
        if tell is not None:
            tell(f"{path} is damaged ({error}); it is made again from the checkpoints beside it")
        return None
    return trained


def train_model(name: str, config: TrainConfig, splits: Splits) -> Trained:
    """Train one model; keep the checkpoint that is best on the validation split. The test split is
    not touched.

    Under ``<out>/<name>`` it writes ``best.ckpt``, ``last.ckpt`` (every epoch; the one before is
    ``previous.ckpt``), TensorBoard and CSV logs, the chosen model as ``model.pt`` (`load_mvae`) and
    at last ``finished.json``. With ``config.resume`` it goes on from ``last.ckpt``, with the result
    that an uninterrupted run has, and does nothing where all is done. Where a file is damaged it
    says so, and goes on from ``previous.ckpt`` or begins anew.

    Returns:
        What became of it; the model is in ``model.pt``.

    Raises:
        RunError: If the loss is not finite, which leaves the last good epoch, or the checkpoint
            cannot be gone on with.
        UsageError: If another process trains the model.
        KeyboardInterrupt: If the user stopped it.
    """
    folder = config.folder / name
    with locked(config.folder, name):
        if config.resume and (done := finished(name, config, say)):
            return done
        mark(folder)
        module = MVAEModule(
            model=config.model(name),
            lr=config.lr,
            annealing_epochs=config.annealing,
            seed=config.seed,
            annealing_schedule=config.annealing_schedule,
            optimizer=config.optimizer,
            validation_samples=config.validation_samples,
        )
        start = resume_point(folder, dict(module.hparams)) if config.resume else None
        # What an earlier end left, and where nothing is gone on with its checkpoints, too.
        for file in ("finished.json", "evaluation.json", *(() if start else (LAST, PREVIOUS))):
            (folder / file).unlink(missing_ok=True)
        try:
            seconds = _fit(module, name, config, splits, start)
        except NotFiniteError as error:
            kept = f"the last good epoch is in {LAST} and the best one in {BEST} of {folder}"
            if not (folder / LAST).exists():
                kept = "no epoch was finished"
            raise RunError(
                f"{title(name)}: {error}; {kept}. The same settings come to the same end: choose a "
                f"lower lr than {config.lr}, with overwrite or another out"
            ) from error
        epoch = read_saved(folder / BEST, {"epoch"})["epoch"] + 1
        save_mvae(load_checkpoint(folder / BEST), folder / "model.pt")
        trained = Trained(epoch, seconds)
        write_json(folder / "finished.json", asdict(trained))
        return trained


def _fit(
    module: MVAEModule, name: str, config: TrainConfig, splits: Splits, start: Path | None
) -> float:
    """Train, from a checkpoint or the start; the wall time in seconds."""
    folder = config.folder / name
    keep = partial(ModelCheckpoint, folder, enable_version_counter=False)
    best = keep(filename=Path(BEST).stem, monitor="val/elbo_sum", save_weights_only=True)
    # After the validation's, so that it knows which epoch is best so far.
    latest = keep(filename=Path(LAST).stem, save_on_train_epoch_end=True)
    timer = Timer()
    device = resolve_device(config.device)
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            max_epochs=config.epochs,
            precision=config.precision,  # type: ignore[arg-type]  # Lightning checks it
            callbacks=[EpochBar(title(name), config.quiet), timer, best, latest],
            logger=[TensorBoardLogger(folder, name="tensorboard"), CSVLogger(folder, name="csv")],
            plugins=[WholeCheckpoints({LAST: PREVIOUS})],
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(
                module,
                batches(splits.train, config.batch_size, seed=config.seed),
                batches(splits.validation, VALIDATION_BATCH),
                ckpt_path=None if start is None else str(start),
            )
        except SystemExit as exit:
            if not trainer.interrupted:
                raise
            # Lightning turns Ctrl-C into an exit and then ignores further ones.
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from exit
        except Exception as error:  # what is made of a checkpoint's content may be any
            if start is None or module.began or isinstance(error, OSError):
                raise
            raise RunError(
                f"{start} cannot be gone on with ({error}); overwrite begins anew"
            ) from error
    return timer.time_elapsed("train")
