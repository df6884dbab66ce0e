"""The simple classifier that judges generated images in Table 2."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_accuracy

from mvae_fast.data import MultimodalDataset, batches
from mvae_fast.experiments.folders.files import write_saved
from mvae_fast.experiments.usage import quiet_lightning, say
from mvae_fast.vae.builders.saved import read_saved

RECIPE = 1
"""Version of network and training; what was trained with another one is trained anew."""


class Classifier(lightning.LightningModule):
    """A multilayer perceptron: two hidden layers of 512 ReLU units with dropout.

    The paper calls its own classifier simple and not tuned, and says no more.

    Example:
        >>> Classifier(784, 10)(torch.zeros(3, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(self, n_pixels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_pixels, 512),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(512, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of images ``(B, ...)`` in [0, 1]."""
        return self.net(images)

    def training_step(self, batch: tuple[dict[str, Tensor], Any], batch_idx: int) -> Tensor:
        """Cross-entropy of one mini-batch."""
        x, _ = batch
        return nn.functional.cross_entropy(self(x["image"]), x["label"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, untuned."""
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Fraction of images that are classified as their label."""
        logits = torch.cat([self(part) for part in images.split(1000)])
        return float(
            multiclass_accuracy(logits, labels, num_classes=self.num_classes, average="micro")
        )


def labelled(dataset: MultimodalDataset) -> MultimodalDataset:
    """The rows that have both ``image`` and ``label``.

    Example:
        >>> arrays = {"image": torch.zeros(3, 8, 8), "label": torch.tensor([4, -1, 2])}
        >>> masks = {"label": torch.tensor([True, False, True])}
        >>> labelled(MultimodalDataset(arrays, masks))[:][0]["label"]
        tensor([4, 2])
    """
    masks = [dataset.masks[name] for name in ("image", "label") if name in dataset.masks]
    return dataset.subset(torch.stack(masks).all(dim=0)) if masks else dataset


def trained_classifier(
    train: MultimodalDataset,
    num_classes: int,
    path: Path,
    rows_of: Mapping[str, Any],
    *,
    epochs: int = 10,
    seed: int = 0,
) -> Classifier:
    """A classifier trained on real images, read from ``path`` if one that was trained likewise is
    there, else written to it.

    Args:
        train: Rows with the modalities ``image`` and ``label``; those that lack one are left out.
        path: File of the weights, with what they were trained on and how.
        rows_of: What the rows are, in plain data.
    """
    train = labelled(train)
    about = {**rows_of, "rows": len(train), "epochs": epochs, "seed": seed, "recipe": RECIPE}

    def untrained() -> Classifier:
        torch.manual_seed(seed)
        return Classifier(train[0][0]["image"].numel(), num_classes)

    if path.exists():
        try:
            saved = read_saved(path, {"about", "state_dict"})
            if saved["about"] == about:
                classifier = untrained()
                classifier.load_state_dict(saved["state_dict"])
                return classifier.eval()
        except (RuntimeError, TypeError, ValueError) as error:
            say(f"{path} cannot be used ({error}); the classifier is trained again")
    classifier = untrained()
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(classifier, batches(train, 100, seed=seed))
    write_saved(path, {"about": about, "state_dict": classifier.state_dict()})
    return classifier.eval()
