"""Table 2: images generated from a label, judged by a classifier."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.stats import binomtest
from torch import Tensor

from mvae_fast.experiments.config import title
from mvae_fast.experiments.report import Entry, Report
from mvae_fast.experiments.reproduce import published
from mvae_fast.experiments.reproduce.classifier import labelled, trained_classifier
from mvae_fast.experiments.reproduce.laboratory import Laboratory
from mvae_fast.vae import MVAE

COUNTS = (1000, 10_000)
"""Images a model: the paper's 1000, and enough for a narrow interval."""


def labelled_samples(model: MVAE, n: int, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images generated from each label in turn, equally often.

    z_0 is drawn from the posterior given the label alone; an image is the pixels' means given z_T.

    Args:
        n: Number of images, rounded down to a multiple of the number of labels.

    Returns:
        Images ``(n, ...)`` and their labels ``(n,)``.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_classes)
    each = n // num_classes
    images = model.generate(each, {"label": labels}, generator=generator)["image"].mean
    return images, labels.repeat_interleave(each)


def table2(laboratory: Laboratory, datasets: Sequence[str], models: Sequence[str]) -> Report:
    """How often a classifier, trained on real images, agrees with the label that was given."""
    runs = laboratory.grid(datasets, models, "an image and a label")
    table: list[Entry] = []
    notes = ["fraction of images generated from a label that the classifier gives that label"]
    for dataset in datasets:
        config = runs[dataset, models[0]][0].config
        # However the models are supervised and selected, it is the same judge.
        full = replace(config, selection="validation", paired_fraction=1.0)
        splits = laboratory.splits(full)
        num_classes = config.modalities["label"]["num_classes"]
        classifier = trained_classifier(
            splits.train,
            num_classes,
            laboratory.out / "classifiers" / f"{dataset}.pt",
            {"dataset": dataset, "dataset_options": config.dataset_options},
        )
        x, _ = labelled(splits.test)[:]
        real = classifier.accuracy(x["image"], x["label"])
        notes.append(f"{dataset}: the classifier is right on {real:.4f} of the real test images")
        for model in models:
            table += (e for e in published.table2(dataset) if e.column == title(model))
            for n in COUNTS:
                samples = [
                    labelled_samples(run.model(), n, num_classes, run.config.seed)
                    for run in runs[dataset, model]
                ]
                values = tuple(classifier.accuracy(*pair) for pair in samples)
                judged = len(samples[0][1])
                table.append(Entry(dataset, f"{judged} samples", "ours", title(model), values))
            total = judged * len(samples)
            hits = round(sum(values) * judged)
            low, high = binomtest(hits, total).proportion_ci(method="wilson")
            notes.append(
                f"{dataset}, {title(model)}: {hits / total:.4f} of {total} samples, 95 % interval "
                f"{low:.4f} to {high:.4f} (Wilson), of these models; another seed gives another"
            )
    notes += laboratory.about(runs.values())
    return Report("Table 2: label-conditioned samples", table, notes, digits=4)
