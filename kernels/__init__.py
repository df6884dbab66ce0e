"""Triton kernels of mvae_fast, installed as `mvae_fast.kernels`."""
