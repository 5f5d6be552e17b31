"""The version, in the one place that the package's build and its `User-Agent` read."""

__all__ = ["__version__"]

__version__ = "0.1.0"
