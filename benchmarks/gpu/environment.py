"""The GPU that a measurement was taken on, its driver, its clocks and what made the code for it."""

import re
import shutil
import subprocess

import torch

from mvae_fast.info import version

# Fields that every driver since the A100's knows.
_FIELDS = (
    "driver_version", "persistence_mode", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit",
    "temperature.gpu",
)  # fmt: skip


def gpu_environment() -> dict[str, str]:
    """Facts for `benchmarks.common.environment.environment`; empty where torch sees no GPU."""
    if not torch.cuda.is_available():
        return {}
    index = torch.cuda.current_device()
    properties = torch.cuda.get_device_properties(index)
    fields = ",".join(_FIELDS)
    asked = _first_line(
        "nvidia-smi",
        f"--id=GPU-{properties.uuid}",
        f"--query-gpu={fields}",
        "--format=csv,noheader",
    )
    return {
        "GPU": f"{properties.name}, {properties.multi_processor_count} SMs, "
        f"{properties.total_memory / 2**30:.0f} GiB, L2 {properties.L2_cache_size / 2**20:.0f} MiB",
        "GPU driver": parse_smi(asked),
        "CUDA": f"torch's {torch.version.cuda}, nvcc {_nvcc()}",
        "triton": version("triton"),
    }


def parse_smi(line: str) -> str:
    """One line of nvidia-smi's answer in words.

    Example:
        >>> parse_smi("580.159, Enabled, 345 MHz, 1980 MHz, 3201 MHz, 700.00 W, 31")
        '580.159, persistence Enabled, SM clock 345 MHz of 1980 MHz before the run, as the driver \
sets it, memory 3201 MHz, 700.00 W, 31 C'
        >>> parse_smi("not installed")
        'unknown (not installed)'
    """
    values = [value.strip() for value in line.split(",")]
    if len(values) != len(_FIELDS):
        return f"unknown ({line})"
    driver, persistence, clock, highest, memory, power, temperature = values
    return (
        f"{driver}, persistence {persistence}, SM clock {clock} of {highest} before the run, as "
        f"the driver sets it, memory {memory}, {power}, {temperature} C"
    )


def _nvcc() -> str:
    answer = _first_line("nvcc", "--version", last=True)
    found = re.search(r"cuda_(\d+\.\d+)", answer)
    return found.group(1) if found else answer


def _first_line(*command: str, last: bool = False) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (answer.stdout or answer.stderr).split("\n")
    lines = [line for line in lines if line.strip()]
    if not lines:
        return f"{command[0]} says nothing"
    return lines[-1 if last else 0]
