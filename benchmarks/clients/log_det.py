"""The exact log-determinant of ten Euler steps, the C++ engine against plain PyTorch.

``python -m benchmarks.clients.log_det``: D = 128, one hidden layer of 256, no gradients, in turns;
milliseconds a row, and how many times longer PyTorch takes. On one thread CPU time, which other
work on the machine leaves alone; on more the wall's.
"""

import argparse
import time

import torch

from benchmarks.common.environment import print_environment
from benchmarks.common.interleave import Quartiles
from mvae_fast import FastCNF, ODEfunc, ODEnet

ENGINES = ("cpp", "reference")


def errors(flows: dict[str, FastCNF], z: torch.Tensor) -> dict[str, float]:
    """Of float32 changes of log-density, against the reference in float64."""
    start = torch.zeros(len(z), 1)
    found = {name: flow(z, start)[1].double() for name, flow in flows.items()}
    exact = flows["reference"].double()(z.double(), start.double())[1]
    flows["reference"].float()
    return {name: float((x - exact).norm() / exact.norm()) for name, x in found.items()}


@torch.no_grad()
def main() -> None:
    """Print the table's row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--double", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print_environment()
    clock = time.process_time if args.threads == 1 else time.perf_counter
    dtype = torch.float64 if args.double else torch.float32
    flows = {}
    for name in ENGINES:
        torch.manual_seed(0)
        net = ODEnet((256,), (128,), layer_type="squash", nonlinearity="softplus")
        settings = {"n_steps": 10, "trace": "exact", "log_det": "exact", "engine": name}
        flows[name] = FastCNF(ODEfunc(net), **settings).to(dtype)
    z, logp = torch.randn(args.rows, 128, dtype=dtype), torch.zeros(args.rows, 1, dtype=dtype)
    if not args.double:
        print({name: f"{error:.1e}" for name, error in errors(flows, z[:100]).items()})
    samples: dict[str, list[float]] = {name: [] for name in ENGINES}
    for i in range(args.rounds + 1):
        for name, flow in flows.items():
            begin = clock()
            flow(z, logp)
            if i:  # the first one warms up
                samples[name].append((clock() - begin) / args.rows)
    for name in ENGINES:
        low, median, high = (1e3 * x for x in Quartiles.of(samples[name]))
        print(f"{name}: {median:.3f} ms a row ({low:.3f}-{high:.3f})")
    pairs = zip(samples["reference"], samples["cpp"], strict=True)
    print(Quartiles.of([theirs / ours for theirs, ours in pairs]).as_ratio())


if __name__ == "__main__":
    main()
