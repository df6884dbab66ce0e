"""What a call costs before it has done any work: ``python -m benchmarks.overhead``.

One row, two dimensions, one Euler step: all of the time is Python's, PyTorch's dispatches and the
start of the ops. The last line is PyTorch's own floor: an autograd.Function of as many tensors that
does nothing. Below the table: what a context adds to a training step of a large net.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.environment import print_environment
from benchmarks.common.interleave import interleave
from mvae_fast import FastCNF, ODEfunc, ODEnet

LAYERS = ("concat", "squash", "concatsquash")
#: Calls in a row, as in training: after another candidate the first finds no code in cache.
REPEATS = 200
FLOOR = "nothing (as many tensors as squash)"


class _Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*tensors)
        return tensors[0].new_empty(1, 2), tensors[0].new_empty(1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors)


def calls(
    call: Callable[[], tuple[Tensor, Tensor]], leaves: list[Tensor]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The forward without gradients, and forward and backward, `REPEATS` times each."""
    grads = torch.ones(1, 2), torch.ones(1, 1)

    def forward() -> None:
        with torch.no_grad():
            for _ in range(REPEATS):
                call()

    def both() -> None:
        for _ in range(REPEATS):
            torch.autograd.grad(call(), leaves, grads)

    return forward, both


def context_ratio(rounds: int) -> str:
    """A training step with 16 numbers of context, to without: D = 64, 512-512, B = 256, 8 steps."""
    z, logp, c = torch.randn(256, 64), torch.zeros(256, 1), torch.randn(256, 16)

    def step(flow: FastCNF, context: Tensor | None) -> None:
        z_t, logp_t = flow(z, logp, context=context)
        (z_t.square().sum() - logp_t.sum()).backward()

    nets = {size: ODEnet((512, 512), (64,), context_dim=size) for size in (0, 16)}
    flows = {size: FastCNF(ODEfunc(net), n_steps=8, trace="exact") for size, net in nets.items()}
    steps = {"without": partial(step, flows[0], None), "with": partial(step, flows[16], c)}
    timings = interleave(steps, threads=1, budget=0, min_rounds=rounds, max_rounds=rounds)
    ratio = timings.ratio("with", "without")
    return f"context: {ratio.median:.3f} ({ratio.lower:.3f}-{ratio.upper:.3f}) of the time without"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    z, logp = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 1)
    timed: dict[str, Callable[[], None]] = {}
    for layer_type in LAYERS:
        net: nn.Module = ODEnet((16,), (2,), layer_type=layer_type)
        flow = FastCNF(ODEfunc(net), n_steps=1, trace="exact")
        leaves = [z, *net.parameters()]
        pair = calls(lambda flow=flow: flow(z, logp), leaves)  # type: ignore[misc]
        timed |= {f"{layer_type} forward": pair[0], f"{layer_type} both": pair[1]}
        if layer_type == "squash":
            floor = calls(lambda leaves=leaves: _Nothing.apply(*leaves), leaves)  # type: ignore[misc]
            timed |= {f"{FLOOR} forward": floor[0], f"{FLOOR} both": floor[1]}
    timings = interleave(timed, threads=1, budget=0, min_rounds=rounds, max_rounds=rounds)
    print_environment()
    print("\n| layers | forward | forward and backward |\n|---|---|---|")
    scale = 1e6 / REPEATS
    for name in (*LAYERS, FLOOR):
        cells = (timings.time(f"{name} {part}") for part in ("forward", "both"))
        times = " | ".join(
            f"{scale * t.median:.0f} us ({scale * t.lower:.0f}-{scale * t.upper:.0f})"
            for t in cells
        )
        print(f"| {name} | {times} |")
    print(f"\n{context_ratio(max(2, rounds // 4))}")


if __name__ == "__main__":
    main()
