"""The workloads W1 to W7: flows that the paper and FFJORD train."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One flow, integrated over [0, 1] with Euler's method.

    Args:
        name: ``"W2"``; with the number of steps, ``"W4/20"``, where a flow comes in two lengths.
        dim: D.
        hidden: Widths of the hidden layers.
        layer_type: Time-conditioned layer, as in ``ODEnet(layer_type=...)``.
        nonlinearity: As in ``ODEnet(nonlinearity=...)``.
        batch: B, rows.
        steps: S, Euler steps.
        note: Where the shape comes from.
    """

    name: str
    dim: int
    hidden: tuple[int, ...]
    layer_type: str
    nonlinearity: str
    batch: int
    steps: int
    note: str

    @property
    def shape(self) -> str:
        """``"D=128, 256, squash, softplus, B=256, 20 steps"``."""
        hidden = "-".join(map(str, self.hidden))
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        return (
            f"D={self.dim}, {hidden}, {self.layer_type}, {self.nonlinearity}, B={self.batch}, "
            f"{steps}"
        )


_PAPER = "the paper, MNIST family"

WORKLOADS: tuple[Workload, ...] = (
    Workload("W1", 128, (256,), "squash", "softplus", 256, 1, _PAPER),
    Workload("W2", 128, (256,), "squash", "softplus", 256, 20, f"{_PAPER}, 20 steps"),
    Workload("W3", 128, (256, 256), "squash", "softplus", 256, 20, f"{_PAPER}, two hidden layers"),
    Workload("W4/1", 196, (256,), "squash", "softplus", 100, 1, "the paper, CelebA"),
    Workload("W4/20", 196, (256,), "squash", "softplus", 100, 20, "the paper, CelebA, 20 steps"),
    Workload("W5", 64, (512, 512), "concat", "softplus", 100, 8, "FFJORD's VAE"),
    Workload("W6", 2, (64, 64, 64), "concatsquash", "tanh", 1000, 20, "FFJORD's toy densities"),
    Workload("W7", 43, (430, 430), "concatsquash", "softplus", 1000, 8, "FFJORD's MINIBOONE"),
)


def select(names: Iterable[str]) -> tuple[Workload, ...]:
    """The workloads of these names; ``"W4"`` stands for both of its lengths.

    Example:
        >>> [workload.name for workload in select(["W4", "W1"])]
        ['W4/1', 'W4/20', 'W1']
    """
    chosen = []
    for name in names:
        found = [w for w in WORKLOADS if name in (w.name, w.name.partition("/")[0])]
        if not found:
            known = ", ".join(w.name for w in WORKLOADS)
            raise ValueError(f"workload: got {name!r}, expected one of {known}")
        chosen += found
    return tuple(chosen)
