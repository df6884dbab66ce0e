"""``mvae-fast bench``: one small measurement, of what is installed on the machine at hand."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from mvae_fast.experiments.commands.options import Parser

#: Calls of each before the first that is timed.
WARMUP = 3


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "bench",
        "Measure one training step through a flow, forward and backward to z and all parameters:\n"
        "FastCNF, and FFJORD's scheme on torchdiffeq with the same net, noise and steps. Calls\n"
        "alternate, so that whatever else the machine does hits both. The default is the flow of\n"
        "the paper's MNIST model with 20 steps of Euler's method.",
        ("bench", "bench --dim 2 --hidden 64 64 64 --batch 1000 --steps 20 --seconds 30"),
    )
    add = parser.add_argument
    add("--dim", type=_positive, default=128, help="D, the size of a state")
    add("--hidden", type=_positive, nargs="+", default=[256], help="widths of the hidden layers")
    add("--batch", type=_positive, default=256, help="rows")
    add("--steps", type=_positive, default=20, help="of Euler's method")
    add("--threads", type=_positive, help="CPU threads; default: PyTorch's choice")
    add("--rounds", type=_positive, default=15, help="timed calls of each, at least")
    add("--seconds", type=float, default=10.0, help="further rounds begin within this time")
    add("--json", action="store_true", help="print all samples, as JSON")
    return parser


def main(argv: Sequence[str]) -> None:
    """Measure, and print medians and quartiles."""
    args = parser().parse_args(argv)
    import torch

    from mvae_fast import __version__
    from mvae_fast.experiments.devices import processor
    from mvae_fast.info import version

    before = torch.get_num_threads()
    torch.set_num_threads(args.threads or before)
    try:
        about = {
            "machine": f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "system": f"{platform.system()} {platform.machine()}, Python "
            f"{platform.python_version()}",
            **{name: version(name) for name in ("torch", "torchdiffeq")},
            "mvae_fast": __version__,
            "flow": f"D={args.dim}, hidden {'-'.join(map(str, args.hidden))}, squash, softplus, "
            f"{args.batch} rows, {args.steps} steps of euler, float32, Hutchinson's trace",
        }
        steps, facts = _steps(args)
        seconds = _alternate(steps, args.rounds, args.seconds)
    finally:
        torch.set_num_threads(before)
    about |= facts
    if args.json:
        print(json.dumps({**about, "seconds": seconds}, indent=2))
        return
    for name, value in about.items():
        print(f"{name:<12} {value}")
    ours, theirs = seconds.values()
    print()
    for name, samples in seconds.items():
        print(f"{name:<12} {_quartiles([1e3 * s for s in samples], ' ms')}")
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    print(f"{'ratio':<12} {_quartiles(ratios, ' times as long')}, {len(ratios)} rounds")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return number


def _steps(args: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """A training step of each by name, and what is to be said of the two."""
    import torch
    from torch import Tensor
    from torchdiffeq import odeint

    from mvae_fast import FastCNF, ODEfunc, ODEnet, engines

    torch.manual_seed(0)
    net = ODEnet(args.hidden, (args.dim,), layer_type="squash")
    flow = FastCNF(ODEfunc(net), n_steps=args.steps, trace="hutchinson")
    z = torch.randn(args.batch, args.dim, requires_grad=True)
    zeros = torch.zeros(args.batch, 1)
    noise = torch.randn(args.batch, args.dim)
    times, grid = torch.tensor([0.0, 1.0]), torch.linspace(0.0, 1.0, args.steps + 1)

    def slopes(t: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y = states[0]
        velocity = net(t, y)
        (product,) = torch.autograd.grad(velocity, y, noise, create_graph=True)
        return velocity, -(product * noise).sum(1, keepdim=True)

    def ffjord() -> tuple[Tensor, Tensor]:
        options = {"grid_constructor": lambda *_: grid}  # a step size would be rounded
        z_path, logp_path = odeint(slopes, (z, zeros), times, method="euler", options=options)
        return z_path[-1], logp_path[-1]

    def training(solve: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], list[Tensor]]:
        def step() -> list[Tensor]:
            z_t, logp_t = solve()
            loss = 0.5 * z_t.square().sum() + logp_t.sum()
            return list(torch.autograd.grad(loss, (z, *net.parameters())))

        return step

    steps = {
        "FastCNF": training(lambda: flow(z, zeros, probes=noise)),
        "torchdiffeq": training(ffjord),
    }
    pairs = zip(*(step() for step in steps.values()), strict=True)
    error = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    engine = engines.usual("auto", z.device, z.dtype)
    return steps, {"engine": engine, "agreement": f"gradients differ by {error:.1e} at most"}


def _alternate(
    calls: dict[str, Callable[[], Any]], rounds: int, budget: float
) -> dict[str, list[float]]:
    """Seconds of each call, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARMUP):
        for call in calls.values():
            call()
    start = time.perf_counter()
    while len(next(iter(seconds.values()))) < rounds or time.perf_counter() - start < budget:
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def _quartiles(samples: Sequence[float], unit: str) -> str:
    if len(samples) == 1:
        return f"{samples[0]:.3g}{unit}"
    lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return f"{median:.3g}{unit} ({lower:.3g}-{upper:.3g})"
