"""MVAE and MVAE-CNF: a variational autoencoder over any number of modalities."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Number
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from mvae_fast.checks import boolean, booleans, integer, one_of
from mvae_fast.distributions import FlowPosterior
from mvae_fast.vae.compiled import eager_where_rows_meet, harmless
from mvae_fast.vae.elbo import ElboTerms, elbo_terms
from mvae_fast.vae.elbo import Objective as Bound
from mvae_fast.vae.inference.aggregation import AggregationName, make_aggregation
from mvae_fast.vae.inference.subsets import joint_and_alone, random_subsets
from mvae_fast.vae.modality import Modalities, Modality
from mvae_fast.vae.pretrained import Pretrained
from mvae_fast.vae.queries import Queries

#: Data by modality, and which rows have it.
Data = Mapping[str, Any]
Masks = Mapping[str, Tensor | None] | None
At = Literal["sample", "mean"]
Generator = torch.Generator | None


class Objective(NamedTuple):
    """The training loss and the terms it was made of."""

    loss: Tensor
    terms: ElboTerms


class MVAE(Pretrained, Queries, nn.Module):
    r"""Multimodal variational autoencoder with product-of-experts inference and an optional flow
    posterior.

    Encoders give one Gaussian expert a modality; their product with the prior expert N(0, I), or
    another ``aggregation``, is the posterior of z_0 for any subset of modalities; the flow carries
    z_0 to z_T; decoders read z_T, and the prior N(0, I) is on z_T. Without a flow this is the MVAE,
    with a `FastCNF` the MVAE-CNF.

    The training loss is minus the sum of the ELBOs of all modalities together, of each alone and of
    ``n_random_subsets`` random subsets,

    .. math:: \mathrm{ELBO}(X) = E_{q(z_T|X)}\Big[\sum_{x_i \in X} \lambda_i \log p(x_i | z_T)\Big]
              - \beta\,\mathrm{KL}[q(z_T|X) \,\|\, p(z_T)] ,

    each of which scores its own modalities only. Every term has its :math:`\lambda_i`, as in eq. 4;
    the MVAE's code for 19 modalities has them in the joint and the image's term only.

    Args:
        modalities: The modalities by name.
        latent_dim: Latent size D.
        flow: None, or a module called ``flow(z, logp) -> (z_T, logp_T)`` on ``(R, D)`` and ``(R,
            1)``, with ``cond (R, 2 D)`` too where its ``cond_dim`` is not 0 (see `FlowPosterior`).
        aggregation: How the experts of several modalities become one posterior of z_0: their
            ``"product"`` with the prior, as in the paper; ``"generalized_product"`` with a learned
            weight for each expert and dimension; ``"mixture"``, in equal parts; or
            ``"mixture_of_products"`` of every subset. The flow follows any of them.
        n_random_subsets: Random subsets drawn for each mini-batch.
        validate_args: Check the range of the data in every call, like ``torch.distributions``.

    Raises:
        ValueError: If there is no modality, a name cannot be used, or there are not that many
            subsets.
        TypeError: If a modality is not a `Modality`.

    References:
        Wu and Goodman 2018, eq. 3-5; Nedelkoski, Bogojeski, Kao 2020, eq. 4, 10 and 11.

    Example:
        >>> from mvae_fast.vae import label_modality, mlp_modality
        >>> model = MVAE(
        ...     {"image": mlp_modality((8, 8), 16), "label": label_modality(10, 16)}, latent_dim=16
        ... )
        >>> x = {"image": torch.rand(5, 8, 8), "label": torch.arange(5)}
        >>> model.loss(x, mask={"label": torch.tensor([True, True, False, True, True])}).backward()
        >>> model.generate(2, given={"label": 3})["image"].mean.shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        latent_dim: int,
        flow: nn.Module | None = None,
        *,
        aggregation: AggregationName = "product",
        n_random_subsets: int = 0,
        validate_args: bool = True,
    ) -> None:
        super().__init__()
        if not modalities:
            raise ValueError("modalities must hold at least one modality")
        for name, modality in modalities.items():
            if not isinstance(modality, Modality):
                raise TypeError(
                    f"modality {name!r} must be a Modality, got {type(modality).__name__}"
                )
            if not isinstance(name, str):
                raise TypeError(f"modality name {name!r} cannot be used: expected a string")
            if not name or "." in name:
                raise ValueError(
                    f"modality name {name!r} cannot be used: PyTorch names submodules after it "
                    "(no dots)"
                )
            if name == "joint" or "/" in name or "|" in name:
                raise ValueError(
                    f"modality name {name!r} cannot be used: measures are named after it, as in "
                    "'elbo/joint' and 'iwae/<modality>|rest' (not 'joint', no '/', no '|')"
                )
        self.latent_dim = integer("latent_dim", latent_dim, 1)
        self.n_random_subsets = integer("n_random_subsets", n_random_subsets, 0)
        self.validate_args = boolean("validate_args", validate_args)
        self.modalities = Modalities(modalities)
        self.aggregation = make_aggregation(aggregation, len(modalities), self.latent_dim)
        self.flow = flow
        self.config: dict[str, Any] | None = None
        """The JSON-able description that `build_mvae` made this model from; None for a hand-made
        one."""
        self.classes: Mapping[str, Callable[..., Any]] = {}
        """Parts of the user's own that the description names, see `build_mvae`."""
        random_subsets(
            len(modalities), self.n_random_subsets, torch.Generator()
        )  # raises if too many

    @eager_where_rows_meet
    def forward(
        self,
        x: Data,
        mask: Masks = None,
        *,
        beta: float = 1.0,
        at: At = "sample",
        n_samples: int = 1,
        objective: Bound = "elbo",
        generator: Generator = None,
    ) -> Objective:
        """The training objective, in one pass (see `elbo_terms`).

        Without a flow the KL divergence is taken in closed form, as the MVAE does; with one it is
        estimated with the sample that is decoded.

        Args:
            x: Data by modality, ``(B, ...)`` each: tensors, arrays, sequences or pandas' objects,
                see `Modality.read`; a modality that is left out or None is missing.
            mask: For modalities that some rows lack, True where they have it, boolean ``(B,)``;
                None where all do; a tensor, array or list. The data of the other rows may hold
                anything, NaN too.
            beta: Weight of the KL term.
            at: ``"sample"``, or ``"mean"`` for a loss without noise.
            n_samples: Samples K of z_0 a row and term.
            objective: ``"elbo"``, or ``"iwae"`` for importance-weighted bounds, which more samples
                make tighter; see `ElboTerms.loss`.
            generator: Source of all noise.

        Returns:
            The loss, a scalar, and the terms it is made of.

        Raises:
            ValueError: If data or masks do not fit the modalities.
            TypeError: If data or masks have the wrong type.
        """
        one_of("at", at, ("sample", "mean"))
        data, present = self.prepare(x, mask)
        n = len(self.modalities)
        subsets: Tensor | list[list[bool]] = joint_and_alone(n)
        if self.n_random_subsets:
            on_cpu = generator is not None and generator.device.type == "cpu"
            drawn = random_subsets(n, self.n_random_subsets, generator if on_cpu else None)
            subsets = torch.cat([torch.tensor(subsets), drawn])
        gaussian = self.flow is None and self.aggregation.gaussian
        exact = gaussian and at == "sample" and objective == "elbo"
        kl: Literal["sample", "closed_form"] = "closed_form" if exact else "sample"
        options = {"at": at, "kl": kl, "n_samples": n_samples, "generator": generator}
        terms = self.terms(data, present, subsets, **options)
        weights = {name: modality.weight for name, modality in self.items()}
        return Objective(terms.loss(weights, beta, objective), terms)

    def loss(
        self,
        x: Data,
        mask: Masks = None,
        *,
        beta: float = 1.0,
        n_samples: int = 1,
        objective: Bound = "elbo",
        generator: Generator = None,
    ) -> Tensor:
        """The training loss alone, a scalar: ``forward(...).loss``."""
        options = {"beta": beta, "n_samples": n_samples, "objective": objective}
        found: Objective = self(x, mask, **options, generator=generator)
        return found.loss

    @eager_where_rows_meet
    def encode(self, x: Data, mask: Masks = None) -> FlowPosterior:
        """The posterior of z_T given whatever each row has, with data and masks as of `forward`; a
        row that has nothing gets the flow's image of N(0, I).

        Returns:
            A distribution with batch shape ``(B,)`` and event shape ``(D,)``.
        """
        return self.posterior(*self.prepare(x, mask))

    def decode(self, z: Tensor) -> dict[str, Distribution]:
        """The distribution of every modality given latents z_T ``(B, D)``."""
        if z.dim() != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z must be (B, {self.latent_dim}), got {tuple(z.shape)}")
        return {name: modality.decode(z) for name, modality in self.items()}

    @eager_where_rows_meet
    def elbo(
        self,
        x: Data,
        mask: Masks = None,
        *,
        at: At = "sample",
        n_samples: int = 1,
        generator: Generator = None,
    ) -> Tensor:
        """The ELBO, in nats, of whatever each row has, with all lambda and beta 1 and the KL term
        estimated.

        Models with and without a flow go through the same code here.

        Args:
            x: Data by modality, ``(B, ...)`` each; pass ``{"image": images}`` for the images' own
                ELBO.
            mask: See `forward`.
            at: ``"sample"``, or ``"mean"`` for the paper's convention, which is not a bound.
            n_samples: Samples of z_0 to average over.
            generator: Source of the noise.

        Returns:
            ``(B,)``; a row that has nothing gets minus the KL divergence alone.
        """
        data, present = self.prepare(x, mask)
        everything = torch.ones(1, len(self.modalities), dtype=torch.bool)
        options = {"every_row": True, "at": at, "n_samples": n_samples, "generator": generator}
        terms = self.terms(data, present, everything, **options)
        return terms.elbo().mean(dim=0).squeeze(0)

    @torch.no_grad()
    def reconstruct(
        self, x: Data, mask: Masks = None, *, at: At = "mean", generator: Generator = None
    ) -> dict[str, Distribution]:
        """Every modality, also those a row lacks, decoded from the posterior given what it has.

        Args:
            x: Data by modality, ``(B, ...)`` each.
            mask: See `forward`.
            at: z_0 at the posterior's mean, or a sample.
            generator: Source of the noise.

        Returns:
            For each modality a distribution of B rows; ``["image"].mean`` gives images.
        """
        one_of("at", at, ("sample", "mean"))
        posterior = self.encode(x, mask)
        if at == "mean":
            return self.decode(posterior.transport(posterior.loc)[0])
        return self.decode(posterior.rsample(generator=generator))

    @torch.no_grad()
    def generate(
        self, n: int, given: Data, mask: Masks = None, *, generator: Generator = None
    ) -> dict[str, Distribution]:
        """Conditional generation: ``n`` samples of every modality for each row of ``given``.

        Args:
            n: Samples a row.
            given: Data by modality, ``(B, ...)`` each, as of `forward`; a plain number or name
                stands for one row, and one row of a modality goes with each of another's. None
                stands for a missing modality.
            mask: See `forward`; each row is conditioned on what it has.
            generator: Source of the noise.

        Returns:
            For each modality a distribution of B·n rows, those of the first condition first.

        Raises:
            ValueError: If ``n`` is no integer >= 0, or data or masks do not fit the modalities.
            TypeError: If data or masks have the wrong type.
        """
        n = integer("n", n, 0)
        _check_mapping("given", given, self.modalities)
        parameter = next(self.parameters())
        rows = {}
        for name, value in given.items():
            if value is None or name not in self.modalities:
                rows[name] = value  # which `encode` leaves out, or names
                continue
            if isinstance(value, str | Number) or getattr(value, "ndim", 1) == 0:
                value = value[None] if isinstance(value, Tensor) else [value]
            rows[name] = self.modalities[name].read(name, value).to(parameter.device)
        count = max((len(row) for row in rows.values() if row is not None), default=0)
        rows = {
            name: row.expand(count, *row.shape[1:]) if row is not None and len(row) == 1 else row
            for name, row in rows.items()
        }
        z = self.encode(rows, mask).rsample((n,), generator=generator)
        return self.decode(z.transpose(0, 1).flatten(0, 1))

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator = None) -> dict[str, Distribution]:
        """Unconditional generation: z_T from the prior N(0, I), decoded; the flow belongs to the
        posterior only.

        Args:
            n: Number of samples.
            generator: Source of the noise.

        Returns:
            For each modality a distribution of ``n`` rows.

        Raises:
            ValueError: If ``n`` is no integer >= 0.
        """
        n = integer("n", n, 0)
        parameter = next(self.parameters())
        z = torch.randn(
            n, self.latent_dim, generator=generator, dtype=parameter.dtype, device=parameter.device
        )
        return self.decode(z)

    def experts(self, x: Mapping[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """The unimodal Gaussian experts of what `prepare` gives; each encoder runs once, on the
        rows that have its modality.

        Returns:
            Means and log-variances, ``(B, N, D)`` each; 0 where the modality is missing.
        """
        parameter = next(self.parameters())
        compiling = torch.compiler.is_compiling()
        means, logvars = [], []
        for i, (name, modality) in enumerate(self.items()):
            here = present[:, i]
            if name not in x or not (compiling or here.any()):
                idle = modality.idle(modality.encoder)
                mean = logvar = parameter.new_zeros(len(present), self.latent_dim) + idle
            elif compiling:
                mean, logvar = (
                    torch.where(here.to(t.device)[:, None], t, 0.0)
                    for t in modality.encoder(harmless(x[name], here))
                )
            elif here.all():
                mean, logvar = modality.encoder(x[name])
            else:
                rows = here.nonzero().squeeze(1).to(x[name].device)
                mean, logvar = (
                    t.new_zeros(len(present), t.shape[-1]).index_copy(0, rows, t)
                    for t in modality.encoder(x[name][rows])
                )
            if mean.shape != (len(present), self.latent_dim) or logvar.shape != mean.shape:
                raise ValueError(
                    f"modality {name!r}: the encoder must give mean and logvar of "
                    f"{self.latent_dim} numbers a row, "
                    f"got {tuple(mean.shape)} and {tuple(logvar.shape)}"
                )
            # Under autocast encoders give half precision, too little for log-densities.
            means.append(mean.to(parameter.dtype))
            logvars.append(logvar.to(parameter.dtype))
        return torch.stack(means, dim=1), torch.stack(logvars, dim=1)

    def posterior(self, x: Mapping[str, Tensor], present: Tensor) -> FlowPosterior:
        """The posterior of z_T given all that each row has of what `prepare` gives."""
        mean, logvar = self.experts(x, present)
        found: FlowPosterior = self.aggregation(mean, logvar, present[None], self.flow)
        return found

    def terms(
        self,
        x: Mapping[str, Tensor],
        present: Tensor,
        subsets: Tensor | Sequence[Sequence[bool]],
        **options: Any,
    ) -> ElboTerms:
        """The ELBO terms of several subsets ``(S, N)`` of modalities, from what `prepare` gives and
        with the options of `elbo_terms`; each encoder runs once."""
        experts = self.experts(x, present)
        options["aggregation"] = self.aggregation
        return elbo_terms(experts, dict(self.items()), self.flow, x, present, subsets, **options)

    def extra_repr(self) -> str:
        """Latent size and number of random subsets, for ``print(model)``."""
        return f"latent_dim={self.latent_dim}, n_random_subsets={self.n_random_subsets}"

    def items(self) -> list[tuple[str, Modality]]:
        """The modalities with their names, in order."""
        return list(self.modalities.items())

    def prepare(self, x: Data, mask: Masks) -> tuple[dict[str, Tensor], Tensor]:
        """Check data and masks as of `forward`.

        Returns:
            The data that are there, and ``present``, boolean ``(B, N)``: on the CPU without masks.

        Raises:
            ValueError: If data or masks do not fit the modalities.
            TypeError: If data or masks have the wrong type.
        """
        mask = {} if mask is None else mask
        for what, value in (("x", x), ("mask", mask)):
            _check_mapping(what, value, self.modalities)
        for what, names in (("x", x), ("mask", mask)):
            if unknown := set(names) - set(self.modalities):
                raise ValueError(
                    f"{what} names unknown modalities {sorted(unknown, key=str)}; "
                    f"this model has {list(self.modalities)}"
                )
        data = {
            name: self.modalities[name].read(name, value)
            for name, value in x.items()
            if value is not None
        }
        masks = {
            name: booleans(f"mask[{name!r}]", here)
            for name, here in mask.items()
            if here is not None
        }
        if not data:
            raise ValueError("x must hold at least one modality; use sample(n) for none")
        for name, rows in data.items():
            if rows.dim() == 0:
                raise TypeError(f"modality {name!r}: data must be (B, ...), got {rows!r}")
        sizes = {name: len(value) for name, value in data.items()}
        batch = next(iter(sizes.values()))
        if batch == 0 or any(size != batch for size in sizes.values()):
            raise ValueError(
                f"all modalities need the same number of rows, at least one, got {sizes}"
            )
        compiling = torch.compiler.is_compiling()

        columns = []
        for name, modality in self.items():
            here = masks.get(name)
            if here is None:
                here = torch.full((batch,), name in data)
            elif here.shape != (batch,):
                raise ValueError(f"mask[{name!r}] must be ({batch},), got {tuple(here.shape)}")
            elif name not in data and not compiling and here.any():
                raise ValueError(f"mask[{name!r}] is True somewhere, but x has no {name!r}")
            if self.validate_args and name in data:
                exact = name in masks and not compiling
                rows = data[name][here] if exact else data[name]
                try:
                    if len(rows):
                        modality.check(rows)
                except (TypeError, ValueError) as error:
                    raise type(error)(f"modality {name!r}: {error}") from None
                _check_dtype(name, data[name], modality.encoder)
            columns.append(here)
        device = next((here.device for here in masks.values()), torch.device("cpu"))
        return data, torch.stack([here.to(device) for here in columns], dim=1)


def _check_mapping(argument: str, value: Any, names: Iterable[str]) -> None:
    if not isinstance(value, Mapping):
        example = ", ".join(f"{name!r}: ..." for name in names)
        raise TypeError(
            f"{argument}: got a {type(value).__name__}, expected a mapping from the names of "
            f"modalities; remedy: {argument}={{{example}}}"
        )


def _check_dtype(name: str, x: Tensor, encoder: nn.Module) -> None:
    parameter = next(encoder.parameters(), None)
    if parameter is None or not x.is_floating_point() or x.dtype == parameter.dtype:
        return
    # Autocast takes everything but double precision to its own.
    if x.dtype != torch.float64 and torch.is_autocast_enabled(x.device.type):
        return
    raise TypeError(
        f"modality {name!r}: got {x.dtype} data, but its encoder is {parameter.dtype}; "
        f"remedy: x[{name!r}].to({parameter.dtype})"
    )
