"""Measurements on a GPU; `benchmarks/gpu_check.sh` runs all of them."""
