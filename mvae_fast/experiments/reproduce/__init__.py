"""The tables and figures of the paper, each by one command: ``mvae-fast reproduce``."""
