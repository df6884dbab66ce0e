"""How the experts of several modalities become one posterior of z_0."""

from abc import ABC, abstractmethod
from itertools import product
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mvae_fast.checks import one_of
from mvae_fast.distributions import Flow, FlowPosterior
from mvae_fast.vae.inference.experts import product_of_experts
from mvae_fast.vae.inference.mixtures import MixturePosterior

AggregationName = Literal["product", "generalized_product", "mixture", "mixture_of_products"]

#: Of a mixture of products there are 2^N - 1 parts.
MOST_IN_PRODUCTS = 8


class Aggregation(nn.Module, ABC):
    """Makes posteriors of the experts of N modalities."""

    #: Whether the posterior of z_0 is a Gaussian, whose KL divergence has a closed form.
    gaussian = True

    @abstractmethod
    def forward(
        self,
        mean: Tensor,
        logvar: Tensor,
        members: Tensor,
        flow: Flow | None,
        pairs: Tensor | None = None,
    ) -> FlowPosterior:
        """The posteriors of z_T given subsets of the modalities.

        Args:
            mean, logvar: The unimodal experts, ``(B, N, D)`` each.
            members: Which modalities each subset has of each row, boolean ``(S, B, N)``.
            flow: That of the posterior, or None.
            pairs: Places in ``(S, B)`` laid flat, ``(R,)``; None for all.

        Returns:
            A distribution with batch shape ``(R,)``. Given nothing it is that of N(0, I).
        """


class ProductOfExperts(Aggregation):
    """The product with the prior expert, as in the MVAE; see `product_of_experts`."""

    def forward(
        self,
        mean: Tensor,
        logvar: Tensor,
        members: Tensor,
        flow: Flow | None,
        pairs: Tensor | None = None,
    ) -> FlowPosterior:
        """As of `Aggregation.forward`."""
        joint = product_of_experts(mean, self._weighed(logvar), members.to(mean.device))
        mean, logvar = (_chosen(part.flatten(0, 1), pairs) for part in joint)
        return FlowPosterior(mean, logvar, flow)

    def _weighed(self, logvar: Tensor) -> Tensor:
        """Log-variances that say how much each expert counts."""
        return logvar


class GeneralizedProductOfExperts(ProductOfExperts):
    r"""The product with a learned weight for each expert and dimension,

    .. math:: q(z_0) \propto p(z_0) \prod_k q_k(z_0)^{w_k}, \qquad w > 0,

    so that a modality can count for less than its expert claims. All weights begin at 1.

    Args:
        n_modalities: N.
        latent_dim: D.

    References:
        Cao and Fleet, Generalized product of experts for automatic and principled fusion of
        Gaussian process predictions, 2014.
    """

    def __init__(self, n_modalities: int, latent_dim: int) -> None:
        super().__init__()
        self.log_weights = nn.Parameter(torch.zeros(n_modalities, latent_dim))

    def _weighed(self, logvar: Tensor) -> Tensor:
        return logvar - self.log_weights


class MixtureOfExperts(Aggregation):
    """Equal parts of the experts that are there, without the prior; log q_0 is that of the whole
    mixture.

    References:
        Shi et al., Variational mixture-of-experts autoencoders for multi-modal deep generative
        models (MMVAE), 2019.
    """

    gaussian = False
    parts: Tensor
    """The modalities of each part, boolean ``(C, N)``."""

    def __init__(self, n_modalities: int) -> None:
        super().__init__()
        self.register_buffer("parts", torch.eye(n_modalities).bool(), persistent=False)

    def forward(
        self,
        mean: Tensor,
        logvar: Tensor,
        members: Tensor,
        flow: Flow | None,
        pairs: Tensor | None = None,
    ) -> FlowPosterior:
        """As of `Aggregation.forward`."""
        members, rows = members.to(mean.device), len(mean)
        there = ~(self.parts & ~members.unsqueeze(-2)).any(-1)  # (S, B, C)
        # N(0, I) where there is nothing else.
        there = torch.cat([there, ~there.any(-1, keepdim=True)], dim=-1).flatten(0, 1)
        mean, logvar = (
            torch.cat([part, part.new_zeros(rows, 1, part.shape[-1])], dim=1)
            for part in self._components(mean, logvar)
        )
        places = torch.arange(len(there), device=mean.device) if pairs is None else pairs
        places = places.to(mean.device)
        return MixturePosterior(mean[places % rows], logvar[places % rows], there[places], flow)

    def _components(self, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        """Of each part and row, ``(B, C, D)``."""
        return mean, logvar


class MixtureOfProducts(MixtureOfExperts):
    """Equal parts of the products, with the prior, of every subset of the experts that are there.

    Raises:
        ValueError: If there are more than 8 modalities, with 255 parts.

    References:
        Sutter, Daunhawer, Vogt, Generalized multimodal ELBO (MoPoE-VAE), 2021.
    """

    def __init__(self, n_modalities: int) -> None:
        super().__init__(n_modalities)
        if n_modalities > MOST_IN_PRODUCTS:
            raise ValueError(
                f"aggregation: got 'mixture_of_products' of {n_modalities} modalities, expected "
                f"at most {MOST_IN_PRODUCTS}: it has 2^N - 1 parts"
            )
        subsets = [subset for subset in product([False, True], repeat=n_modalities) if any(subset)]
        self.parts = torch.tensor(subsets)

    def _components(self, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        return product_of_experts(mean.unsqueeze(1), logvar.unsqueeze(1), self.parts)


def make_aggregation(name: str, n_modalities: int, latent_dim: int) -> Aggregation:
    """An aggregation by its name.

    Raises:
        ValueError: If the name is unknown, or there are too many modalities for it.

    Example:
        >>> make_aggregation("mixture_of_products", 3, latent_dim=2).parts.shape
        torch.Size([7, 3])
    """
    one_of("aggregation", name, get_args(AggregationName))
    if name == "product":
        return ProductOfExperts()
    if name == "generalized_product":
        return GeneralizedProductOfExperts(n_modalities, latent_dim)
    return (MixtureOfExperts if name == "mixture" else MixtureOfProducts)(n_modalities)


def _chosen(x: Tensor, pairs: Tensor | None) -> Tensor:
    return x if pairs is None else x.index_select(0, pairs.to(x.device))
