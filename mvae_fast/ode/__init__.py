"""FFJORD's interface, and the solves that no engine does."""
