"""Whether something got slower: ``python -m benchmarks.compare REV``.

REV is a commit, built once into a git worktree in the user's cache; or the path of a checkout with
its C++ engine built in place. This checkout's engine is taken as it was built last. Each has a
process of its own, and they take turns. The file also is that process: it needs nothing of REV but
its package. Compared are training steps or, with ``--calls``, calls too small to do any work.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.common.interleave import Quartiles

ROOT = Path(__file__).resolve().parent.parent
#: What a sample can be measured with. ``"cpu"``: for one thread, on a machine that others use.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}

HEAD = "| workload | threads | REV, ms | here / REV | rounds | here is |\n" + "|---" * 6 + "|"


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

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(tree: Path, threads: int, clock: str) -> None:
    """Answer each workload on standard input with the seconds of its steps."""
    import torch

    import mvae_fast
    from mvae_fast import FastCNF, ODEfunc, ODEnet

    package = Path(mvae_fast.__file__).resolve()
    if tree.resolve() not in package.parents:
        raise SystemExit(f"REV: got {tree}, but Python found {package}")
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


def checkout(rev: str, cache: Path) -> Path:
    """The path ``rev``; or a worktree of the commit, made and built in ``cache`` at first."""
    if Path(rev).is_dir():
        return Path(rev).resolve()
    git = ["git", "-C", str(ROOT)]
    asked = [*git, "rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if not commit:
        raise SystemExit(f"REV: got {rev!r}, expected a commit or a folder")
    tree = cache / commit
    if not (tree / "setup.py").exists():
        subprocess.run([*git, "worktree", "prune"], check=True)  # a cache that was deleted by hand
        adding = [*git, "worktree", "add", "--quiet", "--detach", str(tree), commit]
        subprocess.run(adding, check=True)
    # The library comes last: a build that was stopped starts again.
    if not any((tree / "mvae_fast").glob("_C.*")):
        print(f"building {commit[:12]}", file=sys.stderr, flush=True)
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(command, cwd=tree, check=True, stdout=2)  # not into the table
        if not any((tree / "mvae_fast").glob("_C.*")):
            reason = tree / "mvae_fast" / "_build_error.txt"
            raise SystemExit(f"REV: {rev} has no C++ engine\n{reason.read_text()}")
    return tree


def cache_folder() -> Path:
    """Where worktrees are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mvae_fast" / "compare"


def verdict(ratio: "Quartiles") -> str:
    """What the quartiles of here / REV allow to be said.

    Example:
        >>> from benchmarks.common.interleave import Quartiles
        >>> verdict(Quartiles(1.02, 1.05, 1.09)), verdict(Quartiles(0.98, 1.01, 1.03))
        ('slower', 'the same')
    """
    return "slower" if ratio.lower > 1 else "faster" if ratio.upper < 1 else "the same"


def questions(chosen: Any, calls: bool) -> dict[str, dict[str, Any]]:
    """What the processes are asked, by the name in the table."""
    from dataclasses import asdict

    from benchmarks.common.workloads import Workload
    from benchmarks.overhead import LAYERS, REPEATS

    if not calls:
        # Single steps in a row: the first after the other process finds nothing in cache.
        return {
            w.name: asdict(w) | {"backward": True, "repeats": 10 if w.steps == 1 else 1}
            for w in chosen
        }
    small = [Workload(layers, 2, (16,), layers, "softplus", 1, 1, "") for layers in LAYERS]
    return {
        f"{w.name}, {part}": asdict(w) | {"backward": backward, "repeats": REPEATS}
        for w in small
        for part, backward in (("forward", False), ("forward and backward", True))
    }


def measure(tree: Path, threads: int, options: argparse.Namespace) -> dict[str, "Quartiles"]:
    """Print the rows of this many threads; the ratios by name."""
    from benchmarks.common.interleave import SETTLE, by_clock, interleave
    from benchmarks.common.workloads import WORKLOADS, select

    chosen = select(options.workloads.split(",")) if options.workloads else WORKLOADS
    checkouts = {
        name: Checkout(path, threads, options.clock)
        for name, path in {"here": ROOT, "other": tree}.items()
    }
    ratios = {}
    for name, question in questions(chosen, options.calls).items():
        calls = {side: partial(process.ask, question) for side, process in checkouts.items()}
        timer = by_clock(time.perf_counter, SETTLE)
        timings = interleave(calls, threads=1, budget=options.budget, timer=timer)
        ratio = ratios[f"{name} ({threads})"] = timings.ratio("here", "other")
        ms = timings.time("other").median * 1e3 / question["repeats"]
        cells = (
            *(name, threads, f"{ms:.4g}"),
            f"{ratio.median:.3f} ({ratio.lower:.3f}-{ratio.upper:.3f})",
            *(timings.rounds, verdict(ratio)),
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    for process in checkouts.values():
        process.close()
    return ratios


def main() -> None:
    """Print a table of the ratios, this checkout to the other, and what got slower."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("rev", metavar="REV")
    parser.add_argument("--workloads", help="such as W1,W2; default: all")
    parser.add_argument("--calls", action="store_true", help="B = 1, D = 2, as benchmarks.overhead")
    parser.add_argument("--threads", default="1", help="such as 1,2")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a workload")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument(
        "--fail-slower",
        type=float,
        metavar="FACTOR",
        help="exit status 1 where a lower quartile is above 1 and the median at least this",
    )
    parser.add_argument("--clean", action="store_true", help="remove REV's worktree afterwards")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(Path(options.rev), int(options.threads), options.clock)

    from benchmarks.common.environment import environment

    cache = cache_folder()
    tree = checkout(options.rev, cache)
    print(", ".join(f"{key}: {value}" for key, value in environment().items()))
    print(f"REV: {options.rev}, {options.clock} time\n\n{HEAD}", flush=True)
    ratios: dict[str, Quartiles] = {}
    for threads in options.threads.split(","):
        ratios |= measure(tree, int(threads), options)
    if options.clean and tree.parent == cache:
        command = ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)]
        subprocess.run(command, check=True)
    slower = {name: ratio for name, ratio in ratios.items() if verdict(ratio) == "slower"}
    said = ", ".join(f"{name} {ratio.median:.3f}" for name, ratio in slower.items())
    print(f"\nSlower beyond the quartiles (threads in brackets): {said or 'nothing'}")
    limit = options.fail_slower
    if limit is not None and any(ratio.median >= limit for ratio in slower.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
