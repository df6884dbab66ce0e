"""MVAE and MVAE-CNF the way their original code trains them, written from its description.

A mini-batch goes through the model three times: with image and label, with the image alone and with
the label alone. Each pass runs the encoders of what it has, multiplies the experts, samples, moves
the sample along FFJORD's flow and runs both decoders, also the one that the pass does not score.
What the original does besides and what costs time is left out in its favour: its losses in float64,
its Swish of two operations, its count of the flow's evaluations.

References:
    Multimodal Generative Models for Scalable Weakly-Supervised Learning (Wu and Goodman, 2018)
    Learning more expressive joint distributions in multimodal variational methods (Nedelkoski,
    Bogojeski, Kao, 2020)
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.common.workloads import Workload
from benchmarks.peers.ffjord import FFJORD, Net
from mvae_fast import FastCNF, ODEfunc
from mvae_fast.vae import MVAE


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Args:
        rows: Of the training set.
        side: Of a square image.
        classes: Of the label.
        width: Of the hidden layers.
        latent: Latent size D.
        flow_width: Of the flow's hidden layer.
        batch: Rows of a mini-batch.
        label_weight: Lambda of the label; the image's is 1.
        learning_rate: Adam's.
    """

    rows: int
    side: int
    classes: int
    width: int
    latent: int
    flow_width: int
    batch: int
    label_weight: float
    learning_rate: float

    @property
    def batches(self) -> int:
        """Mini-batches of an epoch."""
        return math.ceil(self.rows / self.batch)

    def flow(self, steps: int) -> Workload:
        """The flow with so many Euler steps."""
        hidden = (self.flow_width,)
        return Workload("", self.latent, hidden, "squash", "softplus", self.batch, steps, "")


class Encoder(nn.Module):
    """Features, and a linear layer each for mean and log-variance."""

    def __init__(self, features: nn.Module, width: int, latent: int) -> None:
        super().__init__()
        self.features = features
        self.mean = nn.Linear(width, latent)
        self.logvar = nn.Linear(width, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.features(x)
        return self.mean(y), self.logvar(y)


def _swish(*widths: int) -> list[nn.Module]:
    pairs = pairwise(widths)
    return [layer for n_in, n_out in pairs for layer in (nn.Linear(n_in, n_out), nn.SiLU())]


class Original(nn.Module):
    """Image and label, three passes a mini-batch.

    Args:
        setting: What is trained.
        steps: Euler steps of the flow over [0, 1]; 0: no flow, and a KL divergence in closed form.
        adjoint: As of `FFJORD`.
        epsilon: Added to the experts' variances.
    """

    def __init__(
        self, setting: Setting, steps: int, *, adjoint: bool = True, epsilon: float = 1e-8
    ) -> None:
        super().__init__()
        latent, width = setting.latent, setting.width
        pixels, classes = setting.side**2, setting.classes
        image = nn.Sequential(nn.Flatten(), *_swish(pixels, width, width))
        label = nn.Sequential(nn.Embedding(classes, width), nn.SiLU(), *_swish(width, width))
        self.image_encoder = Encoder(image, width, latent)
        self.label_encoder = Encoder(label, width, latent)
        decoder = partial(_swish, latent, width, width, width)
        self.image_decoder = nn.Sequential(*decoder(), nn.Linear(width, pixels))
        self.label_decoder = nn.Sequential(*decoder(), nn.Linear(width, classes))
        self.flow = FFJORD(Net(setting.flow(steps)), steps, adjoint) if steps else None
        self.label_weight = setting.label_weight
        self.epsilon = epsilon

    def load(self, model: MVAE) -> None:
        """Take over the parameters of ours: modalities ``"image"`` and ``"label"``."""
        modalities = dict(model.items())
        image, label = modalities["image"], modalities["label"]
        for ours, mine in (
            (image.encoder, self.image_encoder),
            (label.encoder, self.label_encoder),
            (image.decoder, self.image_decoder),
            (label.decoder, self.label_decoder),
        ):
            given = [p.detach() for p in ours.parameters()]
            if isinstance(mine, Encoder):  # our two heads are one layer
                *features, weight, bias = given
                (mean_w, logvar_w), (mean_b, logvar_b) = weight.chunk(2), bias.chunk(2)
                given = [*features, mean_w, mean_b, logvar_w, logvar_b]
            with torch.no_grad():
                for p, value in zip(mine.parameters(), given, strict=True):
                    p.copy_(value)
        if self.flow is not None:
            assert isinstance(model.flow, FastCNF) and isinstance(model.flow.odefunc, ODEfunc)
            self.flow.dynamics.net.load_state_dict(model.flow.odefunc.diffeq.state_dict())

    def forward(
        self,
        image: Tensor | None,
        label: Tensor | None,
        noise: Tensor | None = None,
        probes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass.

        Args:
            noise: Of the sample, ``(B, D)``; None draws it.
            probes: Of the trace, ``(B, D)``; None draws them.

        Returns:
            Logits of image and label, and the KL divergence ``(B,)``.
        """
        experts = []
        if image is not None:
            experts.append(self.image_encoder(image))
        if label is not None:
            experts.append(self.label_encoder(label))
        prior = torch.zeros_like(experts[0][0])
        mean = torch.stack([prior, *(e[0] for e in experts)])
        logvar = torch.stack([prior, *(e[1] for e in experts)])
        precision = 1 / (logvar.exp() + self.epsilon)
        mean = (mean * precision).sum(0) / precision.sum(0)
        logvar = (1 / precision.sum(0)).log()

        noise = torch.randn_like(mean) if noise is None else noise
        z = mean + (0.5 * logvar).exp() * noise
        if self.flow is None:
            kl = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1)
        else:
            log_q = -0.5 * (logvar + (z - mean) ** 2 / logvar.exp()).sum(1)
            probes = torch.randn_like(z) if probes is None else probes
            z, change = self.flow(z, z.new_zeros(len(z), 1), probes)
            kl = log_q + change.squeeze(1) + 0.5 * (z**2).sum(1)
        return self.image_decoder(z), self.label_decoder(z), kl

    def loss(
        self,
        image: Tensor,
        label: Tensor,
        noise: Tensor | None = None,
        probes: Tensor | None = None,
    ) -> Tensor:
        """The sum of the three negative ELBOs, mean over the rows.

        Args:
            noise: ``(3, B, D)``, for both modalities, the image and the label; None draws it.
            probes: As the noise.
        """
        total = image.new_zeros(())
        subsets: list[tuple[Tensor | None, Tensor | None]] = [
            (image, label),
            (image, None),
            (None, label),
        ]
        for index, (given_image, given_label) in enumerate(subsets):
            image_logits, label_logits, kl = self(
                given_image,
                given_label,
                None if noise is None else noise[index],
                None if probes is None else probes[index],
            )
            loss = kl
            if given_image is not None:
                target = image.flatten(1)
                entropy = F.binary_cross_entropy_with_logits(image_logits, target, reduction="none")
                loss = loss + entropy.sum(1)
            if given_label is not None:
                entropy = F.cross_entropy(label_logits, label, reduction="none")
                loss = loss + self.label_weight * entropy
            total = total + loss.mean()
        return total
