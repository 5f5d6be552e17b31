"""The names and tokens by which a directory of version 1 of the store, the journal of `bulk`, is known. Pure."""

from __future__ import annotations

import hashlib

__all__ = ["RUN_NAME", "folder_token"]

RUN_NAME = "run"
"""The name of the run in the file of its own directory. Elsewhere the name is the resolved path of the directory."""


def folder_token(run: str) -> bytes:
    """Return the token of the folder of a run of version 1, 16 bytes. Each of its runs had exactly one directory.

    The migration records the files of a run under this token, and the run's directory, which has no file with a token
    yet, finds them by it.

    Args:
        run: The name of the run.
    """
    return hashlib.sha256(f"kontext_async folder of version 1: {run}".encode()).digest()[:16]
