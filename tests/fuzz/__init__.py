"""Random problems for the C++ engine against an independent float64 computation.

``python -m tests.fuzz --seed N --problems 1`` prints one problem and its errors.
"""
