"""The command line, ``kontext-async``. It needs the extra ``cli``, and imports what it needs late."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command's name and what follows it; None takes those of the process.

    Returns:
        The exit code: 0 all done, 1 some failed, 2 misuse, 3 key or balance, 4 uncertain submissions, 130 interrupted.
    """
    if missing := [name for name in ("cyclopts", "rich") if find_spec(name) is None]:
        needed = " and ".join(missing)
        sys.stderr.write(f"error: the command line needs {needed}: pip install 'kontext_async[cli]'\n")
        return 2
    from kontext_async.cli.app import run  # noqa: PLC0415 # it may be missing until here

    return run(sys.argv[1:] if arguments is None else arguments)
