"""Draws figures. Needs matplotlib."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["open_panels"]

import_module("matplotlib").use("Agg")
plt: Any = import_module("matplotlib.pyplot")


@contextmanager
def open_panels(path: Path, count: int, columns: int = 2) -> Iterator[list[Any]]:
    """Yield axes to draw on; save the plot at the end."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6.5 * columns, 4 * rows), squeeze=False, layout="constrained")
    try:
        yield list(axes.flat)
        figure.savefig(path, dpi=110)
    finally:
        plt.close(figure)
