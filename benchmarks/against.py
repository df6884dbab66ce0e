"""This checkout against another: ``python -m benchmarks.against OTHER``.

OTHER is a checkout with its C++ engine built in place, of an earlier commit for example. Each has a
process of its own, and they take turns. The file also is that process: it needs nothing of OTHER
but its package. Compared are training steps or, with ``--calls``, calls too small to do any work.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Checkout:
    """A process that runs one checkout's package."""

    def __init__(self, tree: Path, threads: int, clock: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(tree), "--serve", "--clock", clock]
            + ["--threads", str(threads)],
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: dict[str, object]) -> float:
        """Seconds of one step of a workload, or of as many as it says."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(question), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.process.args[2]} ended; it says why above")
        return float(answer)


def serve(tree: Path, threads: int, clock: str) -> None:
    """Answer each workload on standard input with the seconds of its steps."""
    import torch

    import mvae_fast
    from mvae_fast import FastCNF, ODEfunc, ODEnet

    package = Path(mvae_fast.__file__).resolve()
    if tree.resolve() not in package.parents:
        raise SystemExit(f"OTHER: got {tree}, but Python found {package}")
    torch.set_num_threads(threads)
    steps = {}

    def step(flow, z, logp, leaves, grads):  # type: ignore[no-untyped-def]
        results = flow(z, logp)
        if leaves:
            torch.autograd.grad(results, leaves, grads)

    for line in sys.stdin:
        w = json.loads(line)
        if line not in steps:
            torch.manual_seed(0)
            net = ODEnet(w["hidden"], (w["dim"],), None, False, w["layer_type"], w["nonlinearity"])
            flow = FastCNF(ODEfunc(net), n_steps=w["steps"], trace="exact", engine="cpp")
            z, logp = torch.randn(w["batch"], w["dim"]), torch.zeros(w["batch"], 1)
            leaves = [z.requires_grad_(), *net.parameters()] if w["backward"] else []
            grads = torch.randn_like(z), torch.randn_like(logp)
            steps[line] = partial(step, flow, z, logp, leaves, grads), w["repeats"]
        call, repeats = steps[line]
        began = CLOCKS[clock]()
        with torch.set_grad_enabled(w["backward"]):
            for _ in range(repeats):
                call()
        print(CLOCKS[clock]() - began, flush=True)


def main() -> None:
    """Print a table of the ratios, this checkout to the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument("other", type=Path, metavar="OTHER")
    parser.add_argument("--workloads", nargs="+", default=None)
    parser.add_argument("--calls", action="store_true", help="B = 1, D = 2, as benchmarks.overhead")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a workload")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.other, arguments.threads, arguments.clock)

    from dataclasses import asdict

    from benchmarks.common.environment import environment
    from benchmarks.common.interleave import interleave
    from benchmarks.common.workloads import WORKLOADS, Workload, select
    from benchmarks.overhead import LAYERS, REPEATS

    trees = {"here": ROOT, "other": arguments.other}
    checkouts = {
        name: Checkout(tree, arguments.threads, arguments.clock) for name, tree in trees.items()
    }
    print(", ".join(f"{key}: {value}" for key, value in environment().items()))
    print(
        f"| workload | other, ms | here / other, {arguments.clock}, {arguments.threads} threads |"
    )
    print("|---|---|---|")
    chosen = select(arguments.workloads) if arguments.workloads else WORKLOADS
    questions = [
        # Single steps in a row: the first after the other process finds nothing in cache.
        (w.name, asdict(w) | {"backward": True, "repeats": 10 if w.steps == 1 else 1})
        for w in chosen
    ]
    if arguments.calls:
        calls = [Workload(x, 2, (16,), x, "softplus", 1, 1, "") for x in LAYERS]
        questions = [
            (f"{w.name}, {part}", asdict(w) | {"backward": backward, "repeats": REPEATS})
            for w in calls
            for part, backward in (("forward", False), ("forward and backward", True))
        ]
    for name, question in questions:
        timings = interleave(
            {tree: partial(checkout.ask, question) for tree, checkout in checkouts.items()},
            threads=1,
            budget=arguments.budget,
            timer=lambda call: call(),
        )
        ratio = timings.ratio("here", "other")
        ms = timings.time("other").median * 1e3 / int(str(question["repeats"]))
        print(
            f"| {name} | {ms:.4g} | {ratio.median:.3f} ({ratio.lower:.3f}-"
            f"{ratio.upper:.3f}), {timings.rounds} rounds |",
            flush=True,
        )


if __name__ == "__main__":
    main()
