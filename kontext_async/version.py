"""The version. The build and the ``User-Agent`` header read it from here."""

__all__ = ["__version__"]

__version__ = "0.1.0"
