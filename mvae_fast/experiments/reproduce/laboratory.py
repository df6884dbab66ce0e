"""Where the trained models of all experiments are: each is trained once, by who needs it first."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import joblib
import torch

from mvae_fast.data import Splits
from mvae_fast.experiments.checks import check_models
from mvae_fast.experiments.config import TrainConfig, configured, title
from mvae_fast.experiments.devices import resolve_device
from mvae_fast.experiments.evaluation import Metrics, evaluation
from mvae_fast.experiments.folders.folder import check_folder, open_folder
from mvae_fast.experiments.folders.lock import locked
from mvae_fast.experiments.run import load_splits
from mvae_fast.experiments.training import Trained, finished, train_model
from mvae_fast.experiments.usage import usage
from mvae_fast.vae import MVAE, load_mvae

#: Settings that are not the user's to change in a laboratory, and the options for them.
OWN = {
    "dataset": "dataset",
    "models": "models",
    "seed": "seeds",
    "out": "out",
    "data_dir": "data-dir",
    "download": "download",
    "device": "device",
}

#: What experiments need of a data set, and whether its modalities have it.
NEEDS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "an image": lambda modalities: _is_image(modalities.get("image")),
    "an image and a label": lambda modalities: (
        _is_image(modalities.get("image")) and "num_classes" in modalities.get("label", {})
    ),
    "a pair of images": lambda modalities: (
        len(modalities) == 2 and all(map(_is_image, modalities.values()))
    ),
}


def _is_image(modality: Mapping[str, Any] | None) -> bool:
    shape = None if modality is None else modality.get("shape")
    return isinstance(shape, list | tuple) and len(shape) > 1


@dataclass(frozen=True)
class Run:
    """One model, trained with one seed: the settings with that model alone."""

    config: TrainConfig

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.models[0]

    @property
    def folder(self) -> Path:
        """Folder of everything that belongs to the run."""
        return self.config.folder / self.name

    @property
    def trained(self) -> Trained:
        """What became of the training."""
        done = finished(self.name, self.config)
        assert done is not None, f"{self.folder} is not trained"
        return done

    def is_complete(self) -> bool:
        """Whether it is trained and evaluated."""
        there = (self.folder / "evaluation.json").exists()
        return there and finished(self.name, self.config) is not None

    def model(self) -> MVAE:
        """The trained model, on the CPU."""
        return load_mvae(self.folder / "model.pt")

    def evaluate(self, splits: Splits) -> Metrics:
        """The trained model's numbers on the test split."""
        cache = self.folder / "evaluation.json"
        config = self.config
        model = self.model().to(resolve_device(config.device))
        return evaluation(model, splits.test, config.seed, cache, config.samples, config.quiet)


@dataclass
class Laboratory:
    """Trains what experiments ask for and remembers it under ``<out>/runs``.

    A run that was interrupted goes on, one that is finished is not repeated, and one with other
    settings is refused.

    Args:
        out: Folder for everything written.
        seeds: Of the runs of each model.
        jobs: Runs that are trained at the same time, in processes of their own.
        device: Where models are trained and evaluated, as `resolve_device` takes it.
        files: YAML files of settings, as `configured` takes them.
        settings: ``key=value`` settings, likewise.
        locks: Where the locks of `train` are held on to; None: nowhere.
        quiet: Show no progress.
    """

    out: Path
    seeds: Sequence[int] = (0,)
    jobs: int = 1
    data_dir: str | None = None
    download: bool = False
    device: str = "auto"
    files: Sequence[str] = ()
    settings: Sequence[str] = ()
    locks: ExitStack | None = None
    quiet: bool = False
    recipes: dict[str, Any] = field(default_factory=dict)
    """What each run that was asked for is made of, by its folder below ``<out>/runs``."""
    _splits: dict[tuple[Any, ...], Splits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs must be positive, got {self.jobs}")
        for setting in self.settings:
            name = setting.partition("=")[0]
            if name in ("resume", "overwrite"):
                raise ValueError(f"--set {setting}: runs are always resumed; --out makes new ones")
            if name in OWN:
                raise ValueError(f"--set {setting}: {name} has an option of its own, --{OWN[name]}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be at least one, each once, got {list(self.seeds)}")

    def runs(
        self, dataset: str, model: str, label: str = "", changes: Sequence[str] = (), **fields: Any
    ) -> list[Run]:
        """The runs of a model, one a seed.

        Args:
            label: Name of the folder where it is not the data set's: settings differ there.
            changes: ``key=value`` settings on top of the laboratory's.
            fields: Fields of `TrainConfig` to replace.
        """
        with usage():
            values = configured(dataset, self.files, [*self.settings, *changes])
        values = {
            **values,
            **fields,
            "models": [model],
            "resume": True,
            "quiet": self.quiet or values.get("quiet", False),
            "data_dir": self.data_dir or values.get("data_dir"),
            "download": self.download or values.get("download", False),
            "device": values.get("device", "auto") if self.device == "auto" else self.device,
        }
        folder = self.out / "runs" / (label or dataset)
        with usage():
            return [
                Run(TrainConfig(**{**values, "seed": seed, "out": str(folder / f"seed{seed}")}))
                for seed in self.seeds
            ]

    def grid(
        self, datasets: Sequence[str], models: Sequence[str], needs: str | None = None
    ) -> dict[tuple[str, str], list[Run]]:
        """The runs of each model on each data set, trained; see `runs` and `train`."""
        runs = {(d, m): self.runs(d, m) for d in datasets for m in models}
        self.train((run for group in runs.values() for run in group), needs)
        return runs

    def train(self, runs: Iterable[Run], needs: str | None = None) -> None:
        """Train and evaluate what is missing.

        Args:
            needs: What the data sets must have, one of `NEEDS`.

        Raises:
            UsageError: If a run has other settings than its folder, another command uses it, a
                model's description is faulty, or data are faulty or missing, or do not suit.
            RunError: If a training cannot go on.
        """
        runs = list(runs)
        with usage():  # what can be wrong shows before hours of work
            for run in runs:
                modalities = run.config.modalities
                if needs is not None and not NEEDS[needs](modalities):
                    raise ValueError(
                        f"the data set must have {needs}; {run.config.dataset} has "
                        f"{list(modalities)}"
                    )
            for run in runs:
                check_models(run.config, self.splits(run.config))
                check_folder(run.config)
        # Of a folder of ours one command has all, and of each run the same as `mvae-fast train`.
        folders = dict.fromkeys([self.out, *(run.config.folder for run in runs)])
        with ExitStack() if self.locks is None else nullcontext(self.locks) as locks:
            for folder in folders:
                locks.enter_context(locked(folder))
            with usage():
                for run in runs:
                    open_folder(run.config)
                    name = run.folder.relative_to(self.out / "runs").as_posix()
                    self.recipes[name] = run.config.recipe()
            missing = [run for run in runs if not run.is_complete()]
            jobs = min(self.jobs, len(missing))
            if jobs > 1:
                # Each process its own threads: by default all would take all cores.
                missing = [Run(replace(r.config, threads=r.config.threads or 1)) for r in missing]
            joblib.Parallel(max(1, jobs))(joblib.delayed(complete)(run) for run in missing)

    def splits(self, config: TrainConfig) -> Splits:
        """The data of a run, read once."""
        options = json.dumps(config.dataset_options, sort_keys=True)
        key = (config.dataset, options, config.selection, config.paired_fraction)
        if key not in self._splits:
            self._splits[key] = load_splits(config)
        return self._splits[key]

    def metrics(self, runs: Sequence[Run]) -> list[Metrics]:
        """The numbers of trained runs."""
        return [run.evaluate(self.splits(run.config)) for run in runs]

    def about(self, groups: Iterable[Sequence[Run]]) -> list[str]:
        """Lines on how the runs of models were trained: epochs chosen and wall time."""
        lines = []
        for group in groups:
            name = f"{group[0].config.folder.parent.name}, {title(group[0].name)}"
            kept = ", ".join(str(run.trained.epoch) for run in group)
            seeds = ", ".join(str(run.config.seed) for run in group)
            minutes = sum(run.trained.seconds for run in group) / len(group) / 60
            lines.append(
                f"{name}: seeds {seeds}; epochs kept {kept} of {group[0].config.epochs}; "
                f"training {minutes:.1f} min a seed"
            )
        return lines


def complete(run: Run) -> None:
    """Train a run, or go on with it, and evaluate it."""
    if run.config.threads is not None:
        torch.set_num_threads(run.config.threads)
    splits = load_splits(run.config)
    train_model(run.name, run.config, splits)
    run.evaluate(splits)
