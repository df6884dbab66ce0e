"""Velocities as people write them, and how they become data."""
