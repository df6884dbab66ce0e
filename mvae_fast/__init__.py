"""Fast continuous normalizing flows and multimodal VAEs for PyTorch."""

__all__ = ["__version__"]

__version__ = "0.1.0"
