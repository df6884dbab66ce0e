"""The LightningModule that trains an MVAE, and a progress bar for its training."""

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from tqdm import tqdm

from mvae_fast.vae import ANNEALING, build_mvae, evaluate
from mvae_fast.vae.elbo import ElboTerms

#: Optimisers by name. Adam in its fused form: the plain one costs as much as the networks do at
#: this size. Adamax as in the paper's code.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adamax": partial(torch.optim.Adamax, eps=1e-7),
}

Batch = tuple[dict[str, Tensor], dict[str, Tensor]]


class NotFiniteError(Exception):
    """The loss is no number any more; the message says where, and of which of its terms."""


class MVAEModule(lightning.LightningModule):
    """Trains an MVAE with an annealed KL term, and validates it by its ELBOs.

    The noise of a mini-batch depends on the seed, the epoch and its place in it only, so that a
    resumed run goes on as if it had never stopped. Validation always uses the same noise, beta 1
    and lambda 1.

    Args:
        model: Description of the model, for `build_mvae`.
        lr: Learning rate.
        annealing_epochs: Epochs over which beta rises to 1, mini-batch by mini-batch.
        seed: Of initialisation and noise.
        annealing_schedule: One of `mvae_fast.vae.ANNEALING`.
        optimizer: One of `OPTIMIZERS`.
        validation_samples: Samples of z_0 a row in validation.
    """

    def __init__(
        self,
        model: dict[str, Any],
        lr: float,
        annealing_epochs: int,
        seed: int,
        annealing_schedule: str = "linear",
        optimizer: str = "adam",
        validation_samples: int = 4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(seed)
        self.model = build_mvae(model)
        self.began = False
        self._sums: dict[str, Any] = {}

    def on_train_start(self) -> None:
        """All that a checkpoint has is restored."""
        self.began = True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective of one mini-batch."""
        # Here and not once an epoch: making a DataLoader's iterator also draws from the generator.
        entropy = (self.hparams["seed"], self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        batches = int(self.trainer.num_training_batches)
        step = self.current_epoch * batches + batch_idx
        annealing = ANNEALING[self.hparams["annealing_schedule"]]
        beta = annealing(step, self.hparams["annealing_epochs"] * batches, batches)
        x, mask = batch
        loss, terms = self.model(x, mask, beta=beta)
        if not loss.isfinite():
            raise NotFiniteError(
                f"the loss is {loss.item()} in epoch {self.current_epoch + 1}, step "
                f"{batch_idx + 1} of {batches}, by {_not_finite(terms)}"
            )
        with torch.no_grad():
            rows = terms.kl.shape[-1]
            self._add("train/rows", rows)
            self._add("train/loss", loss * rows)
            self._add("train/beta", beta * rows)
            self._add("train/kl_joint", terms.kl[:, 0].sum())
            for name, nll in terms.nll.items():
                self._add(f"train/nll_joint_{name}", nll[:, 0].sum())
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means: Lightning's logging in every step took a quarter of the time."""
        rows = self._sums.pop("train/rows")
        self.log_dict({key: value / rows for key, value in self._sums.items()})
        self._sums = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The negative ELBOs of one batch; their sum chooses the checkpoint."""
        x, mask = batch
        # The exact log-determinant would cost more than the training.
        result = evaluate(
            self.model, [(x, mask)], n_samples=self.hparams["validation_samples"], log_det="trace"
        )
        values = {key: value for key, (value, _) in result.items()}
        if broken := [key for key, value in values.items() if not math.isfinite(value)]:
            raise NotFiniteError(
                f"the validation after epoch {self.current_epoch + 1}, step {self.global_step}, is "
                f"not finite, by {', '.join(broken)}"
            )
        total = sum(value for key, value in values.items() if key.startswith("elbo/"))
        rows = len(next(iter(x.values())))
        self.log_dict({f"val/{key}": value for key, value in values.items()}, batch_size=rows)
        self.log("val/elbo_sum", total, batch_size=rows)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser, with the settings of `OPTIMIZERS`."""
        return OPTIMIZERS[self.hparams["optimizer"]](self.parameters(), lr=self.hparams["lr"])

    def _add(self, key: str, value: Any) -> None:
        self._sums[key] = self._sums.get(key, 0.0) + value


class EpochBar(Callback):
    """One bar over all epochs; where output is not a terminal, six lines now and then instead;
    nothing where it is to be quiet."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        self.title = title
        self.quiet = quiet
        self.bar: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the bar."""
        self.bar = tqdm(
            desc=self.title,
            total=trainer.max_epochs,
            initial=trainer.current_epoch,
            disable=self.quiet or not sys.stderr.isatty(),
            bar_format="{desc:<10}{percentage:4.0f}% |{bar:16}| {n_fmt}/{total_fmt} epochs "
            "[{elapsed}<{remaining}]{postfix}",
        )

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Move the bar by an epoch."""
        validation = float(trainer.callback_metrics["val/elbo_sum"])
        self.bar.set_postfix_str(f"validation {validation:.1f}", refresh=False)
        self.bar.update()
        epoch, total = trainer.current_epoch + 1, trainer.max_epochs
        lines = self.bar.disable and not self.quiet
        if lines and (epoch % max(1, total // 6) == 0 or epoch == total):
            print(
                f"{self.title:<10} {epoch:>3}/{total} epochs, validation {validation:.1f}",
                flush=True,
            )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the bar, so that the error starts on a line of its own."""
        if self.bar is not None:
            self.bar.close()


def _not_finite(terms: ElboTerms) -> str:
    """The terms of a loss that are not finite."""
    named = {f"the reconstruction of {name!r}": nll for name, nll in terms.nll.items()}
    named["the KL term"] = terms.kl
    broken = [name for name, term in named.items() if not term.isfinite().all()]
    return " and ".join(broken) or "their sum"
