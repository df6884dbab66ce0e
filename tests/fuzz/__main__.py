"""Run problems and print what is off: ``python -m tests.fuzz --seed 0 --problems 300``."""

from __future__ import annotations

import argparse
import collections

import torch

from mvae_fast.engines import cpp as ops
from tests.fuzz.check import DOUBLE, Error
from tests.fuzz.judge import judged
from tests.fuzz.problems import draw


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first problem")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument(
        "--capability", choices=ops.capabilities(), action="append", help="default: each"
    )
    arguments = parser.parse_args()
    capabilities = arguments.capability or ops.capabilities()
    kinds: dict[tuple[str, str, str], list[Error]] = collections.defaultdict(list)
    bad = skipped = 0
    for seed in range(arguments.seed, arguments.seed + arguments.problems):
        problem = draw(seed)
        if arguments.problems == 1:
            print(problem)
        found = judged(problem, capabilities)
        skipped += not found
        bad += not all(allowed for _, _, allowed in found)
        for capability, error, allowed in found:
            dtype = str(problem.dtype).removeprefix("torch.")
            kinds[capability, dtype, error.kind].append(error)
            if not allowed or arguments.problems == 1:
                _print(f"{'' if allowed else 'TOO FAR '}seed {seed} {capability}", error)
    if arguments.problems > 1:
        _print_table(kinds)
    print(
        f"{', '.join(capabilities)}: {arguments.problems} problems, {skipped} blew up, "
        f"{bad} too far off (float64: {DOUBLE:g} allowed)"
    )
    return bad > 0


def _print(where: str, error: Error) -> None:
    print(
        f"{where} {error.name}: off by {error.ours:.2e}, eager {error.eager:.2e}, "
        f"half ulps {error.ulps:.2e}",
        flush=True,
    )


def _print_table(kinds: dict[tuple[str, str, str], list[Error]]) -> None:
    print("quantiles of the errors: half, 99 %, the largest; of eager PyTorch behind them")
    for (capability, dtype, kind), errors in sorted(kinds.items()):
        print(
            f"{capability:11} {dtype:8} {kind:32} {len(errors):6}"
            f"  {_quantiles([x.ours for x in errors])}"
            + (f"  {_quantiles([x.eager for x in errors])}" if dtype == "float32" else "")
        )


def _quantiles(values: list[float]) -> str:
    shares = torch.tensor([0.5, 0.99, 1.0], dtype=torch.float64)
    quantiles = torch.tensor(values, dtype=torch.float64).quantile(shares)
    return " ".join(f"{x:8.1e}" for x in quantiles.tolist())


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main())
