"""Slices of a training epoch: ours, and the original's way, from the same parameters."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.peers.original import Original, Setting
from mvae_fast.vae import MVAE, cnf_posterior, label_modality, mlp_modality

#: The candidate that ratios are relative to.
OURS = "mvae_fast"
HALF = f"{OURS} bf16"
PEER = "the original's way"


#: The paper's setting; batch, optimiser and steps, on which it is silent, are ours.
MNIST = Setting(
    rows=60_000, side=28, classes=10, width=512, latent=128, flow_width=256,
    batch=100, label_weight=50.0, learning_rate=1e-3,
)  # fmt: skip


def models(
    setting: Setting, steps: int, *, adjoint: bool = True, epsilon: float = 1e-8
) -> tuple[MVAE, Original]:
    """Ours and the original with the same parameters, and a flow of so many Euler steps, 0 for the
    MVAE; ``adjoint`` and ``epsilon`` are the original's."""
    torch.manual_seed(0)
    shape, latent = (setting.side, setting.side), setting.latent
    nets = {"hidden": setting.width}
    image = mlp_modality(shape, latent, **nets)
    label = label_modality(setting.classes, latent, weight=setting.label_weight, **nets)
    flow = cnf_posterior(latent, hidden=(setting.flow_width,), n_steps=steps) if steps else None
    ours = MVAE({"image": image, "label": label}, latent, flow)
    theirs = Original(setting, steps, adjoint=adjoint, epsilon=epsilon)
    theirs.load(ours)
    return ours, theirs


def slices(
    setting: Setting, steps: int, batches: int, dtype: torch.dtype
) -> dict[str, Callable[[], Tensor]]:
    """Functions that train on some mini-batches, loss, gradients and Adam, and give the last loss.

    The data are random, in the shape of the setting's; drawing them from the training set, the same
    for all, is not part of it.

    Args:
        batches: Mini-batches of a call.
        dtype: Of images and parameters; float32 brings ours under autocast, too.

    Returns:
        By candidate, ours first. All start from the same parameters.
    """
    ours, theirs = models(setting, steps)
    ours.to(dtype)
    theirs.to(dtype)
    half = copy.deepcopy(ours)
    side, rows = setting.side, setting.batch
    data = [
        (torch.rand(rows, side, side, dtype=dtype), torch.randint(0, setting.classes, (rows,)))
        for _ in range(batches)
    ]
    rate = setting.learning_rate

    def autocast_loss(image: Tensor, label: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return half.loss({"image": image, "label": label})

    calls = {
        OURS: _slice(
            lambda image, label: ours.loss({"image": image, "label": label}),
            torch.optim.Adam(ours.parameters(), rate, fused=True),
            data,
        ),
        HALF: _slice(autocast_loss, torch.optim.Adam(half.parameters(), rate, fused=True), data),
        PEER: _slice(theirs.loss, torch.optim.Adam(theirs.parameters(), rate), data),
    }
    if dtype != torch.float32:
        del calls[HALF]
    return calls


def _slice(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    data: list[tuple[Tensor, Tensor]],
) -> Callable[[], Tensor]:
    def train() -> Tensor:
        for image, label in data:
            optimizer.zero_grad()
            loss = loss_of(image, label)
            loss.backward()
            optimizer.step()
        return loss.detach()

    return train
