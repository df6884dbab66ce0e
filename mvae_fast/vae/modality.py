"""A modality: encoder, decoder, likelihood and weight."""

from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from mvae_fast.arrays import as_tensor
from mvae_fast.checks import positive
from mvae_fast.vae.likelihoods.base import Likelihood
from mvae_fast.vae.sizes import sizes


class Modality(nn.Module):
    r"""One modality of an `MVAE`.

    Args:
        encoder: Module ``x (B, ...) -> (mean, logvar)``, ``(B, D)`` each: the unimodal Gaussian
            expert.
        decoder: Module ``z (B, D) -> output``.
        likelihood: A `Likelihood`, or any callable from the decoder's output to a
            ``torch.distributions`` object whose ``log_prob`` gives one number a row.
        weight: :math:`\lambda` of this modality's log-likelihood in the training objective (eq. 4).
        shape: Shape of one row of data, ``()`` for a label; checked when given.

    Raises:
        TypeError: If encoder or decoder are not modules or the likelihood cannot be called.
        ValueError: If ``weight`` is not positive and finite, or ``shape`` does not hold integers.

    References:
        Nedelkoski, Bogojeski, Kao, Learning more expressive joint distributions in multimodal
        variational methods, 2020, eq. 4.

    Example:
        >>> from mvae_fast.vae import CategoricalLikelihood, EmbeddingEncoder, MLPDecoder
        >>> label = Modality(
        ...     EmbeddingEncoder(10, latent_dim=4),
        ...     MLPDecoder(4, (10,)),
        ...     CategoricalLikelihood(10),
        ...     weight=50.0,
        ...     shape=(),
        ... )
        >>> label.weight
        50.0
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood | Callable[[Tensor], Distribution],
        weight: float = 1.0,
        shape: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__()
        for name, module in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(module, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {type(module).__name__}")
        if not callable(likelihood):
            raise TypeError(
                "likelihood must be a Likelihood or a callable from decoder outputs to a "
                f"distribution, got {likelihood!r}"
            )
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.weight = positive("weight", weight)
        self.shape = None if shape is None else sizes("shape", shape, at_least=0)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "likelihood":  # one that is a module may give way to one that is none
            for place in (self._modules, self.__dict__):
                place.pop(name, None)
        super().__setattr__(name, value)

    def read(self, name: str, x: Any) -> Tensor:
        """Data of any form as the tensor ``(B, ...)`` that `check` and the encoder take.

        Arrays, sequences, pandas' objects and numbers become tensors, floats of them in the
        encoder's precision; what else is taken is for the likelihood to say (`Likelihood.read`,
        `Likelihood.cast`). A tensor of floats keeps its precision.

        Args:
            name: Of the modality, for the messages.
            x: ``(B, ...)``.

        Raises:
            TypeError: If it does not hold numbers.
            ValueError: If it cannot be read.
        """
        dtype = next((p.dtype for p in self.encoder.parameters()), torch.get_default_dtype())
        likelihood = self.likelihood if isinstance(self.likelihood, Likelihood) else None
        if not isinstance(x, Tensor):
            if likelihood is not None:
                try:
                    x = likelihood.read(x)
                except ValueError as error:
                    raise ValueError(f"modality {name!r}: {error}") from None
            x = as_tensor(name, x)
            x = x.to(dtype) if x.is_floating_point() else x
        return x if likelihood is None else likelihood.cast(x, dtype)

    def check(self, x: Tensor) -> None:
        """Raise if the data ``x`` (B, ...) have the wrong shape, type or range."""
        if self.shape is not None and x.shape[1:] != self.shape:
            raise ValueError(f"rows must have shape {self.shape}, got {tuple(x.shape[1:])}")
        # What depends on values cannot be asked in compiled code.
        if isinstance(self.likelihood, Likelihood) and not torch.compiler.is_compiling():
            self.likelihood.check(x)

    def decode(self, z: Tensor) -> Distribution:
        """Distribution of this modality's data given latents ``z`` (B, D)."""
        output = self.decoder(z)
        if isinstance(output, Tensor):
            output = output.to(z.dtype)  # under autocast decoders give half precision
        return self.likelihood(output)

    def idle(self, part: nn.Module) -> Tensor:
        """A zero that depends on the parameters of encoder or decoder, for one that has no rows.

        Distributed training waits for a gradient of every parameter in every step. Where no
        gradients are recorded it is only zero.
        """
        trained = [p for p in part.parameters() if p.requires_grad and torch.is_grad_enabled()]
        return torch.stack([0.0 * p.sum() for p in trained]).sum() if trained else torch.zeros(())

    def extra_repr(self) -> str:
        """Weight, likelihood and shape, for ``print(model)``."""
        shape = "" if self.shape is None else f", shape={self.shape}"
        likelihood = "" if isinstance(self.likelihood, nn.Module) else f", {self.likelihood!r}"
        return f"weight={self.weight:g}{likelihood}{shape}"


class Modalities(nn.ModuleDict):
    """Modalities by name, in order; a name may be one that ``torch.nn.ModuleDict`` has a use for,
    such as ``"train"``, ``"keys"`` or ``"type"``: its parameters are then called ``train_`` ...

    Args:
        modalities: The modalities by name.
    """

    def __init__(self, modalities: Mapping[str, Modality]) -> None:
        super().__init__()
        self._places: dict[str, str] = {}
        for name, modality in modalities.items():
            place = name
            # Of an instance, which has more: `training` and `_modules`, for example.
            while hasattr(self, place) or (place != name and place in modalities):
                place += "_"
            self._places[name] = place
            self.add_module(place, modality)

    def __getitem__(self, name: str) -> Modality:
        return cast(Modality, self._modules[self._places[name]])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._places.keys()

    def values(self) -> Any:
        """The modalities."""
        return [self[name] for name in self]

    def items(self) -> Any:
        """Names and modalities."""
        return [(name, self[name]) for name in self]
