"""Small models and flows that the tests share."""

import torch
from torch import nn

from mvae_fast.vae import (
    MVAE,
    BernoulliLikelihood,
    CategoricalLikelihood,
    EmbeddingEncoder,
    MLPDecoder,
    MLPEncoder,
    Modality,
    NormalLikelihood,
)

D = 5


class AffineFlow(nn.Module):
    """z_T = e^s * z_0 + b: everything about it is known in closed form."""

    def __init__(self, dim=D):
        super().__init__()
        self.log_scale = nn.Parameter(torch.linspace(-0.4, 0.6, dim))
        self.shift = nn.Parameter(torch.linspace(-1.0, 1.0, dim))
        self.rows = []

    def forward(self, z, logp, reverse=False):
        self.rows.append(len(z))
        change = self.log_scale.sum()
        if reverse:
            return (z - self.shift) * (-self.log_scale).exp(), logp + change
        return z * self.log_scale.exp() + self.shift, logp - change


def image(weight=1.0, dim=D):
    return Modality(
        MLPEncoder((3, 4), dim, [7]),
        MLPDecoder(dim, (3, 4), [6]),
        BernoulliLikelihood(),
        weight=weight,
        shape=(3, 4),
    )


def label(weight=50.0, dim=D):
    return Modality(
        EmbeddingEncoder(4, dim, [6, 6]),
        MLPDecoder(dim, (4,), [6]),
        CategoricalLikelihood(4),
        weight=weight,
        shape=(),
    )


def sound(weight=2.0, dim=D):
    return Modality(
        MLPEncoder((6,), dim, [7]),
        MLPDecoder(dim, (6,), [7]),
        NormalLikelihood(0.5),
        weight=weight,
        shape=(6,),
    )


def bimodal(flow=None, dim=D, **kwargs):
    torch.manual_seed(0)
    return MVAE({"image": image(dim=dim), "label": label(dim=dim)}, dim, flow, **kwargs)


def trimodal(flow=None, **kwargs):
    torch.manual_seed(0)
    return MVAE({"image": image(), "label": label(), "sound": sound()}, D, flow, **kwargs)


def data(rows=7, names=("image", "label"), dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    everything = {
        "image": torch.rand(rows, 3, 4, generator=generator, dtype=dtype),
        "label": torch.randint(0, 4, (rows,), generator=generator),
        "sound": torch.randn(rows, 6, generator=generator, dtype=dtype),
    }
    return {name: everything[name] for name in names}
