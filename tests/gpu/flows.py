"""One training step of a flow, anywhere: what the tests of this folder compare."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from mvae_fast import FastCNF, ODEfunc
from tests.gpu.places import Place
from tests.oracles import gradients, random_net

__all__ = ["Step"]


class Step:
    """A flow with its inputs.

    Args:
        place: Where, and on which engine.
        hidden: Widths of the hidden layers.
        batch: Rows.
        dim: D.
        dtype: Of everything.
        layer_type: As of ODEnet.
        trace: As of FastCNF.
        reverse: As of FastCNF's forward.
        times: Of the forward, or None.
        seed: Of the numbers, which are the same on every device.
        settings: More of FastCNF's.
    """

    def __init__(
        self,
        place: Place,
        hidden: tuple[int, ...] = (33,),
        batch: int = 37,
        dim: int = 17,
        dtype: torch.dtype = torch.float32,
        layer_type: str = "concatsquash",
        trace: str = "exact",
        reverse: bool = False,
        times: tuple[float, ...] | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = random_net(hidden, dim, layer_type)
            z, noise = torch.randn(2, batch, dim, dtype=torch.float64)
        settings = {"T": 0.8, "n_steps": 4, **settings}
        flow = FastCNF(ODEfunc(net), trace=trace, engine=place.engine, **settings)
        self.flow = flow.to(place.device, dtype)
        self.z = z.to(place.device, dtype).requires_grad_()
        self.logp = torch.zeros_like(self.z[:, :1])
        sampled = trace == "hutchinson" or "jacobian_norm" in settings.get("regularization_fns", ())
        self.noise = noise.to(place.device, dtype) if sampled else None
        self.options: dict[str, Any] = {"reverse": reverse}
        if times is not None:
            self.options["integration_times"] = torch.tensor(times, dtype=dtype).to(place.device)

    def leaves(self) -> list[Tensor]:
        """What gets a gradient."""
        return [self.z, *self.flow.parameters()]

    def outputs(self) -> tuple[Tensor, ...]:
        """States, log-densities, and the integrals of the regularisers where there are any."""
        results = self.flow(self.z, self.logp, probes=self.noise, **self.options)
        penalties = self.flow.get_regularization_states() if self.flow.nreg else None
        return *results, *(penalties or ())

    def __call__(self) -> list[Tensor]:
        """Values and gradients, detached."""
        outputs = self.outputs()
        return [*(x.detach() for x in outputs), *gradients(outputs, self.leaves())]

    def twin(self) -> Step:
        """Another one that shares nothing."""
        return copy.deepcopy(self)
