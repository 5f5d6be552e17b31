"""A request body of one piece, as aiohttp sends it: with the head, in one write.

aiohttp would send an async iterator piece by piece, with turns of the loop between them. A payload of its own class is
written at once, and its `write` is where the engine learns that the last byte is handed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from kontext_async.engine.uploads import Upload

__all__ = ["WholeBody"]


class WholeBody(aiohttp.BytesPayload):
    """The body of an `Upload` that is one piece of JSON."""

    def __init__(self, upload: Upload, body: bytes) -> None:
        super().__init__(body, content_type="application/json")
        self._upload = upload

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body. aiohttp calls this once, when the connection is ready."""
        self._upload.hand_over()
        await writer.write(self._value)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002
        """Send the body. The length is that of the body."""
        await self.write(writer)
