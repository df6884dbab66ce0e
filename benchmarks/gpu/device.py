"""The first device call, and the engines that it brings: ``python -m benchmarks.gpu.device``."""

import torch

from benchmarks.common.environment import print_environment
from benchmarks.gpu.candidates import GPU_ENGINES, why_missing
from benchmarks.gpu.timing import why_no_gpu

#: The exit status where there is no GPU.
NO_GPU = 3


def main() -> int:
    """Compute something on the GPU; the exit status is 1 where one of its engines is missing."""
    reason = why_no_gpu()
    if reason is not None:
        print(reason)
        return NO_GPU
    total = torch.ones(1000, device="cuda").sum().item()
    assert total == 1000, total
    print_environment()
    missing = [name for name in GPU_ENGINES if why_missing(name) is not None]
    for name in missing:
        print(f"engine {name!r} is missing: {why_missing(name)}")
    present = [name for name in GPU_ENGINES if name not in missing]
    print(f"engines: {', '.join(present) or 'none'}")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
