"""Try an installed wheel beside the torch that is there: its engine, its values, its gradients.

    python - < build_backend/try_wheel.py

From another folder than a checkout's, whose package would be found first. It fails where the C++
engine is missing, wrong in float64, or more than twice as far off in float32 as the reference.
"""

import importlib.metadata
import platform
import sys

import torch

import mvae_fast
from mvae_fast import FastCNF, ODEfunc, ODEnet, engines

# Rounding errors of two engines in float32 differ by as much as they are.
FACTOR = 2.0


def results(engine: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """End states, log-densities and all gradients of a small flow, in float64."""
    torch.manual_seed(0)
    net = ODEnet((64,), (16,), layer_type="squash", nonlinearity="softplus")
    flow = FastCNF(ODEfunc(net), n_steps=10, trace="exact", engine=engine).to(dtype)
    z = torch.randn(100, 16, dtype=torch.float64).to(dtype).requires_grad_()
    z_T, change = flow(z, torch.zeros(100, 1, dtype=dtype))
    (z_T.square().sum() + change.sum()).backward()
    found = [z_T, change, z.grad, *(p.grad for p in flow.parameters() if p.grad is not None)]
    return [x.detach().double() for x in found]


def distance(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest relative difference."""
    pairs = zip(ours, theirs, strict=True)
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


def main() -> None:
    """Print what was found, and raise where it is wrong."""
    print(
        f"mvae_fast {importlib.metadata.version('mvae_fast')} in {mvae_fast.__file__}",
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}",
        sep="\n",
    )
    if reason := engines.why_missing("cpp"):
        sys.exit(f"the C++ engine is missing: {reason}")
    exact = results("reference", torch.float64)
    double = distance(results("cpp", torch.float64), exact)
    single = distance(results("cpp", torch.float32), exact)
    limit = FACTOR * distance(results("reference", torch.float32), exact)
    print(f"C++ engine: {double:.1e} from the reference in float64, {single:.1e} in float32")
    if not (double < 1e-12 and single <= limit):
        sys.exit(f"that is too far: expected at most 1e-12 and {limit:.1e}")


if __name__ == "__main__":
    main()
