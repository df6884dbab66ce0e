"""The mathematics of a solve in plain PyTorch: velocities as data, grids, traces, the reference."""
