"""Pictures of figures. Needs matplotlib."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["panels"]

import_module("matplotlib").use("Agg")
plt: Any = import_module("matplotlib.pyplot")


@contextmanager
def panels(path: Path, count: int, columns: int = 2) -> Iterator[list[Any]]:
    """Axes to draw on; saved at the end."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6.5 * columns, 4 * rows), squeeze=False, layout="constrained")
    try:
        yield list(axes.flat)
        figure.savefig(path, dpi=110)
    finally:
        plt.close(figure)
