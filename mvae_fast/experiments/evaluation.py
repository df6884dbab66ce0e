"""What a trained model is measured by on the test split, computed once and kept beside it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mvae_fast.data import MultimodalDataset
from mvae_fast.experiments.folders.files import read_json, write_json
from mvae_fast.experiments.report import Entry
from mvae_fast.experiments.usage import say
from mvae_fast.vae import MVAE, evaluate
from mvae_fast.vae.evaluation import CONVENTIONS, LogDetErrors

#: Samples of z_0 a row, by convention, where nothing else is asked for.
SAMPLES: dict[str, int] = {"paper": 1, "elbo": 16, "iwae": 64}

VERSION = 1
"""Of what the numbers mean: raised, it makes kept ones be computed anew."""

VALUES_AT_ONCE = 8_000_000
"""Numbers that the samples of the largest modality have in one batch: 32 megabytes a tensor."""

Metrics = Mapping[str, Mapping[str, tuple[float, float]]]
"""Mean and standard error by convention and key of `mvae_fast.vae.evaluate`."""


def evaluation(
    model: MVAE,
    dataset: MultimodalDataset,
    seed: int = 0,
    cache: Path | None = None,
    samples: Mapping[str, int] = SAMPLES,
    quiet: bool = False,
) -> Metrics:
    """A model's numbers on a data set in all conventions.

    Args:
        model: The model; the rows are taken to its device.
        cache: File that keeps the numbers. It is read if it was written for as many rows and
            samples by this `VERSION`, and written again else, also where it is damaged.
        samples: Samples of z_0 a row, by convention.
        quiet: Show no bar, as where stderr is no terminal.
    """
    about = {"version": VERSION, "rows": len(dataset), "samples": dict(samples), "seed": seed}
    if cache is not None and (kept := _kept(cache, about)):
        return kept
    device = next(model.parameters()).device
    largest = numbers_a_row(model, dataset)
    metrics: dict[str, dict[str, tuple[float, float]]] = {}
    errors: LogDetErrors = {}
    with tqdm(
        desc="evaluation",
        total=sum(samples[convention] for convention in CONVENTIONS) * len(dataset),
        unit=" samples",
        unit_scale=True,
        leave=False,
        disable=True if quiet else None,  # None: unless it is a terminal
    ) as bar:
        for convention in reversed(CONVENTIONS):  # "iwae" has the posteriors of "elbo", and more
            n = samples[convention]
            rows = max(1, VALUES_AT_ONCE // (n * largest))
            metrics[convention] = evaluate(
                model,
                _batches(dataset, rows, device, bar, n),
                convention,
                n_samples=n,
                log_det="available",
                log_det_errors=errors,
                seed=seed,
            )
    metrics = {convention: metrics[convention] for convention in CONVENTIONS}
    if cache is not None:
        write_json(cache, {"about": about, "metrics": metrics})
    return metrics


def numbers_a_row(model: MVAE, dataset: MultimodalDataset) -> int:
    """Numbers that the largest modality of a row has; a likelihood of levels has one for each."""
    x, _ = dataset[0]
    return max(
        value.numel() * getattr(model.modalities[name].likelihood, "levels", 1)
        for name, value in x.items()
    )


def _batches(
    dataset: MultimodalDataset, rows: int, device: torch.device, bar: tqdm, samples: int
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Batches on a device; the bar moves by the samples of each when the next one is asked for."""
    for start in range(0, len(dataset), rows):
        x, mask = dataset[start : start + rows]
        yield (
            {name: value.to(device) for name, value in x.items()},
            {name: value.to(device) for name, value in mask.items()},
        )
        bar.update(samples * min(rows, len(dataset) - start))


def _kept(cache: Path, about: Mapping[str, Any]) -> Metrics | None:
    """The numbers in a file, if they are of this evaluation."""
    if not cache.exists():
        return None
    try:
        saved = read_json(cache)
        if not isinstance(saved, dict) or set(saved) != {"about", "metrics"}:
            raise ValueError("it must hold about and metrics")
        metrics = saved["metrics"]
        if not isinstance(metrics, dict) or set(metrics) != set(CONVENTIONS):
            raise ValueError(f"metrics must be those of {list(CONVENTIONS)}")
        for numbers in metrics.values():
            if not isinstance(numbers, dict) or not all(map(_is_pair, numbers.values())):
                raise ValueError("each number must be a mean and a standard error")
    except ValueError as error:
        say(f"{cache} is damaged ({error}); the numbers are computed again")
        return None
    return metrics if saved["about"] == about else None


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(number) in (int, float) for number in value)
    )


def quantities(modalities: list[str], convention: str) -> dict[str, str]:
    """Keys of `mvae_fast.vae.evaluate` by the name of the paper's column: modalities are X1, X2,
    ... in order.

    Example:
        >>> quantities(["image", "label"], "elbo")["ELBO X1"]
        'elbo/image'
    """
    numbered = [(f"X{i}", name) for i, name in enumerate(modalities, 1)]
    if convention == "iwae":
        alone = {f"-log p {x}": f"iwae/{m}" for x, m in numbered}
        if len(numbered) == 1:
            return alone
        given = {f"-log p {x} | rest": f"iwae/{m}|rest" for x, m in numbered}
        return {"-log p joint": "iwae/joint", **alone, **given}
    if len(numbered) == 1:
        return {"X1 NLL": f"nll/{modalities[0]}", "ELBO X1": f"elbo/{modalities[0]}"}
    return {
        **{f"{x} BCE": f"nll/joint/{m}" for x, m in numbered},
        "ELBO joint": "elbo/joint",
        **{f"ELBO {x}": f"elbo/{m}" for x, m in numbered},
    }


def entries(
    section: str, column: str, modalities: list[str], results: list[Metrics]
) -> Iterator[Entry]:
    """A model's entries of Table 1, a column, from the numbers of each seed."""
    for convention in CONVENTIONS:
        for title, key in quantities(modalities, convention).items():
            if all(key in metrics[convention] for metrics in results):
                values = tuple(metrics[convention][key][0] for metrics in results)
                yield Entry(section, title, convention, column, values)


def legend(modalities: list[str], samples: Mapping[str, int] = SAMPLES) -> list[str]:
    """What the names in the table mean."""
    named = ", ".join(f"X{i} = {name}" for i, name in enumerate(modalities, 1))
    return [
        f"{named}; BCE: reconstruction in the joint term; ELBO: negative; nats, lambda = beta = 1",
        *(
            f"{convention}: {meaning}"
            + (f" ({samples[convention]} samples a row)" if samples[convention] > 1 else "")
            for convention, meaning in CONVENTIONS.items()
        ),
    ]


def log_det_notes(name: str, results: Sequence[Metrics]) -> list[str]:
    """A line on how far a model's integrated traces are from log-determinants, if it has a flow."""
    errors = [metrics["elbo"].get("log_det_error", (None,))[0] for metrics in results]
    known = [error for error in errors if error is not None]
    if not known:
        return []
    # With an error that is only unknown the numbers are those of the integrated trace.
    bounds = (v for metrics in results for key, (v, _) in metrics["elbo"].items() if "elbo/" in key)
    if not all(map(math.isfinite, bounds)):
        return [f"{name}: its ELBOs are not finite, and neither is the log-determinant's error"]
    if any(map(math.isnan, known)):
        return [
            f"{name}: its solver's steps have no exact log-determinant; elbo and iwae hold the "
            "integrated trace, and are bounds as far as the solver is accurate"
        ]
    listed = ", ".join(f"{error:+.3f}" for error in known)
    return [
        f"{name}: integrated trace - exact log-determinant of the steps, joint posteriors: "
        f"{listed} nats"
    ]
