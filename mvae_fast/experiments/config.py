"""The settings of a training run."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mvae_fast.checks import near
from mvae_fast.data.registry import DATASETS
from mvae_fast.experiments.folders.files import read_yaml
from mvae_fast.vae.inference.aggregation import AggregationName

#: The names that models are shown under; any other is shown as it is.
TITLES: dict[str, str] = {
    "mvae": "MVAE",
    "mvae_cnf": "MVAE-CNF",
    "mvae_planar": "MVAE-planar",
    "mvae_sylvester": "MVAE-Sylvester",
    "mvae_iaf": "MVAE-IAF",
}


def title(model: str) -> str:
    """The name that a model is shown under."""
    return TITLES.get(model, model)


def check_name(name: Any, key: str) -> None:
    """Refuse a name that cannot be that of a file or folder, and no other place's."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{key}: a name must be of letters, digits, _ and - only, got {name!r}")


def check_seed(seed: int, name: str = "seed") -> None:
    """Refuse a seed that PyTorch's generators do not take."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"{name} must not be negative and less than 2**64, got {seed}")


def _option(help: str, **default: Any) -> Any:
    return field(metadata={"help": help}, **default)


@dataclass(kw_only=True)
class TrainConfig:
    """What ``mvae-fast train`` does; the values of a data set's own run are in
    ``configs/<dataset>.yaml``.

    Example:
        >>> config = TrainConfig.load("digits")
        >>> config.epochs, config.annealing, config.latent_dim
        (40, 13, 128)
    """

    dataset: str = _option("data set")
    dataset_options: dict[str, Any] = _option(
        "options of its loader, such as train_split of CelebA", default_factory=dict
    )
    data: str | None = _option(
        "a .npz, .csv or .parquet file or a folder of your own, in place of a data set",
        default=None,
    )
    split: dict[str, Any] = _option(
        "of data of your own: validation and test (fractions, 0.1 each) and seed (0), or column, "
        "whose cells say train, validation or test",
        default_factory=dict,
    )
    models: list[str] = _option("models to train: names among those of flows")
    seed: int = _option("seed of initialisation, shuffling and noise", default=0)
    epochs: int = _option("passes over the training split")
    annealing_epochs: int | None = _option(
        "epochs over which the KL term's weight rises linearly to 1; default: a third of them",
        default=None,
    )
    annealing_schedule: Literal["linear", "jump"] = _option(
        "jump: as in the original code, which never gets to 1 while it rises",
        default="linear",
    )
    batch_size: int = _option("rows a mini-batch")
    optimizer: Literal["adam", "adamax"] = _option("adamax: as in the paper's code", default="adam")
    lr: float = _option("learning rate")
    selection: Literal["validation", "test"] = _option(
        "split that chooses the epoch; test: as in the paper's code",
        default="validation",
    )
    validation_samples: int = _option("samples of z_0 a row when an epoch is validated", default=4)
    paired_fraction: float = _option(
        "fraction of the training rows whose modalities stay together (weak supervision)",
        default=1.0,
    )
    elbo_samples: int = _option("samples of z_0 a row of the test split, for ELBOs", default=16)
    iwae_samples: int = _option("likewise, for importance-weighted likelihoods", default=64)
    latent_dim: int = _option("latent size D")
    n_random_subsets: int = _option(
        "random subsets of modalities drawn for each mini-batch", default=0
    )
    aggregation: AggregationName = _option(
        "how the experts of several modalities become one posterior", default="product"
    )
    modalities: dict[str, Any] = _option(
        "modalities by name, as mvae_fast.vae.build_mvae takes them"
    )
    flows: dict[str, Any] = _option(
        "for each model the flow of its posterior, as build_mvae takes it, or null"
    )
    precision: str = _option(
        "Lightning's: 32-true, or bf16-mixed for bfloat16 products (slower on a CPU without them)",
        default="32-true",
    )
    out: str | None = _option(
        "folder for everything written; default: runs/<dataset>", default=None
    )
    data_dir: str | None = _option(
        "folder of data sets that are read from files; default: $MVAE_FAST_DATA", default=None
    )
    download: bool = _option("fetch the data set if it is not there", default=False)
    device: str = _option(
        "auto (a GPU if there is one), cpu, cuda or cuda:<number>", default="auto"
    )
    threads: int | None = _option("CPU threads; null: PyTorch's choice", default=None)
    resume: bool = _option(
        "continue a run that was interrupted, from its last epoch", default=False
    )
    overwrite: bool = _option("replace models that are in the folder already", default=False)
    quiet: bool = _option("print results only, no progress", default=False)

    def __post_init__(self) -> None:
        check_types(vars(self))
        check_name(self.dataset, "dataset")
        for name in self.models:
            check_name(name, "models")
        for key, null in (("flows", "null or "), ("modalities", "")):
            described = getattr(self, key)
            for name, value in described.items():
                check_name(name, key)
                if null and value is None:
                    continue
                if not isinstance(value, Mapping) or "type" not in value:
                    raise ValueError(
                        f"{key}.{name} must be {null}a mapping with a type, got {value!r}; the "
                        f"others are {[other for other in described if other != name]}"
                    )
        if unknown := set(self.models) - set(self.flows):
            raise ValueError(
                f"models must be among {list(self.flows)}, got {sorted(unknown)}"
                + near(min(unknown), self.flows)
            )
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other")
        if not self.models or len(set(self.models)) < len(self.models):
            raise ValueError(f"models must name at least one model, each once, got {self.models}")
        counts = ("epochs", "batch_size", "latent_dim", "elbo_samples", "iwae_samples")
        for name in (*counts, "validation_samples", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if math.isinf(self.lr):
            raise ValueError(f"lr must be finite, got {self.lr}")
        if self.threads is not None and not 0 < self.threads < 2**31:
            raise ValueError(f"threads must be positive and less than 2**31, got {self.threads}")
        check_seed(self.seed)
        for name in ("annealing_epochs", "n_random_subsets"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.paired_fraction <= 1:
            raise ValueError(f"paired_fraction must be in (0, 1], got {self.paired_fraction}")

    @classmethod
    def load(cls, dataset: str, **changes: Any) -> "TrainConfig":
        """The settings of a data set's own run, with changes."""
        return cls(**{**cls.packaged(dataset), **changes})

    @staticmethod
    def packaged(dataset: str) -> dict[str, Any]:
        """The packaged configuration of a data set, merged into the one it names as ``base``."""
        if dataset not in DATASETS:
            raise ValueError(
                f"there is no configuration {dataset!r} among {sorted(DATASETS)}"
                + near(dataset, DATASETS)
            )
        return layers(dataset)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The values of the settings that have one."""
        return {
            f.name: f.default if f.default_factory is MISSING else f.default_factory()
            for f in fields(cls)
            if (f.default, f.default_factory) != (MISSING, MISSING)
        }

    @property
    def annealing(self) -> int:
        """Epochs of annealing."""
        return self.epochs // 3 if self.annealing_epochs is None else self.annealing_epochs

    @property
    def samples(self) -> dict[str, int]:
        """Samples of z_0 a row of the test split, by convention."""
        return {"paper": 1, "elbo": self.elbo_samples, "iwae": self.iwae_samples}

    @property
    def folder(self) -> Path:
        """Folder for everything written."""
        return Path(self.out or f"runs/{self.dataset}")

    def model(self, name: str) -> dict[str, Any]:
        """The description of a model, for `build_mvae`."""
        return {
            "latent_dim": self.latent_dim,
            "modalities": self.modalities,
            "flow": self.flows[name],
            "aggregation": self.aggregation,
            "n_random_subsets": self.n_random_subsets,
        }

    def recipe(self) -> dict[str, Any]:
        """Everything that decides the numbers of a run: all but where and how it runs."""
        how = {"out", "data_dir", "download", "device", "threads"}
        return {key: value for key, value in self.settings().items() if key not in how}

    def settings(self) -> dict[str, Any]:
        """What a file of settings says: all but what belongs to one call."""
        call = {"resume", "overwrite", "quiet"}
        return {key: value for key, value in asdict(self).items() if key not in call}

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """How a saved `recipe` differs from this one, a line each.

        Which models are trained may differ, and so may flows that only one of them has, and how
        many samples are evaluated. What a recipe of an older version lacks was as is the default.
        """
        shared = [name for name in self.models if name in (saved.get("flows") or {})]

        def comparable(recipe: Mapping[str, Any]) -> dict[str, Any]:
            return {
                **self.defaults(),
                **recipe,
                "flows": {name: recipe["flows"][name] for name in shared},
            }

        there, here = comparable(saved), comparable(self.recipe())
        return [
            f"{name}: {there[name]!r} there, {here[name]!r} here"
            for name in self.recipe()
            if name not in ("models", "elbo_samples", "iwae_samples") and there[name] != here[name]
        ]


def layers(name: str) -> dict[str, Any]:
    """A packaged file of settings on top of the one that it names as ``base``."""
    path = resources.files("mvae_fast.experiments") / "configs" / f"{name}.yaml"
    values: dict[str, Any] = read_yaml(path.read_text())
    base = values.pop("base", None)
    return values if base is None else merge(layers(base), values)


def check_types(values: Mapping[str, Any]) -> None:
    """Raise a ValueError for a setting of another type than `TrainConfig` has."""
    hints = get_type_hints(TrainConfig)
    for name, value in values.items():
        if not fits(value, hints[name]):
            raise ValueError(f"{name} must be {type_name(hints[name])}, got {value!r}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type. A bool is no number, and a whole number is a float."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in arguments
    if isinstance(hint, UnionType):
        return any(fits(value, each) for each in arguments)
    if arguments:  # of a dict the keys: what its values may be is for those to say who take them
        return isinstance(value, get_origin(hint)) and all(fits(v, arguments[0]) for v in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if hint is float else hint)


def type_name(hint: Any) -> str:
    """What a field's type is called in a message."""
    if get_origin(hint) is Literal:
        return f"one of {get_args(hint)}"
    return str(hint) if get_args(hint) else hint.__name__


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``; mappings in both are merged in turn.

    Example:
        >>> merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}})
        {'a': {'b': 1, 'c': 4}, 'd': 3}
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged


def configured(
    dataset: str, files: Iterable[str | Path] = (), settings: Iterable[str] = ()
) -> dict[str, Any]:
    """A data set's packaged configuration with YAML files and ``key=value`` settings on top.

    Args:
        dataset: The data set.
        files: YAML files of `TrainConfig`'s fields, merged in order.
        settings: ``key=value``; dots in the key go down into mappings, the value is YAML.

    A file may come from elsewhere. It cannot make a run replace models: that is for an option or
    ``settings`` to say.

    Raises:
        ValueError: If a file or a setting cannot be used, or is for another data set; it is named.

    Example:
        >>> values = configured("digits", settings=["flows.mvae_cnf.T=0.5", "epochs=3"])
        >>> values["flows"]["mvae_cnf"]["T"], values["epochs"]
        (0.5, 3)
    """
    values = changed(TrainConfig.packaged(dataset), files, settings)
    check_types(values)
    if values.get("data") is not None:
        raise ValueError(f"data must be null with the data set {dataset}, got {values['data']!r}")
    if values["dataset"] != dataset:
        # The networks and everything else would be those of the first one.
        raise ValueError(f"dataset must be {dataset!r} here, got {values['dataset']!r}")
    return values


def chosen_dataset(files: Iterable[str | Path], settings: Iterable[str]) -> str:
    """The data set that files or settings name, as `configured` takes them, or digits."""
    return str(changed({"dataset": "digits"}, files, settings)["dataset"])


def changed(
    values: dict[str, Any], files: Iterable[str | Path] = (), settings: Iterable[str] = ()
) -> dict[str, Any]:
    """``values`` with files and settings on top, as `configured` takes them."""
    known = [f.name for f in fields(TrainConfig)]
    for file in files:
        try:
            changes = read_yaml(Path(file).read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"--config {file}: {error}") from None
        if not isinstance(changes, dict):
            raise ValueError(f"--config {file}: expected a mapping of settings")
        if unknown := sorted(str(key) for key in changes if key not in known):
            raise ValueError(
                f"--config {file}: unknown settings {unknown}{near(unknown[0], known)}; known: "
                + ", ".join(known)
            )
        if changes.get("overwrite"):
            # Somebody else's settings must not cost this user's models.
            raise ValueError(f"--config {file}: overwrite is no setting of a file; use --overwrite")
        values = merge(values, changes)
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = key.split(".")
        if not equals or path[0] not in known:
            raise ValueError(
                f"--set {setting}: expected key=value{near(path[0], known)}; keys: "
                + ", ".join(known)
            )
        try:
            change: Any = read_yaml(text)
        except ValueError as error:
            raise ValueError(f"--set {setting}: {error}") from None
        for part in reversed(path):
            change = {part: change}
        values = merge(values, change)
    return values
