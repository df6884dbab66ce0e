"""A progress bar for a whole training run."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

__all__ = ["EpochBar"]


class EpochBar(Callback):
    """One bar over all epochs; where output is not a terminal, a line now and then instead.

    Args:
        title: what is trained.
        lines: how many lines to write when there is no terminal.
    """

    def __init__(self, title: str, lines: int = 6) -> None:
        self.title = title
        self.lines = lines
        self.bar: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the bar."""
        self.bar = tqdm(
            desc=self.title,
            total=trainer.max_epochs,
            initial=trainer.current_epoch,
            disable=not sys.stderr.isatty(),
            bar_format="{desc:<10}{percentage:4.0f}% |{bar:16}| {n_fmt}/{total_fmt} epochs "
            "[{elapsed}<{remaining}]{postfix}",
        )

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Move the bar by an epoch."""
        validation = float(trainer.callback_metrics["val/elbo_sum"])
        self.bar.set_postfix_str(f"validation {validation:.1f}", refresh=False)
        self.bar.update()
        epoch, total = trainer.current_epoch + 1, trainer.max_epochs
        if self.bar.disable and (epoch % max(1, total // self.lines) == 0 or epoch == total):
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
