"""`Spool`: in memory up to `SPOOL_AT`, then in a temporary file."""

from __future__ import annotations

import os

import pytest

from kontext_async.images.spooling import SPOOL_AT, Spool, TooLarge


@pytest.mark.parametrize("size", [0, 1, SPOOL_AT, SPOOL_AT + 1, 3 * SPOOL_AT])
def test_a_spool_returns_the_bytes_that_were_written_to_it(size: int) -> None:
    data = os.urandom(size)
    spool = Spool(size)
    for start in range(0, size, 100_000):
        assert spool.room == size - start + 1
        spool.write(data[start : start + 100_000])
    content = spool.finish()
    spool.close()
    assert content.on_disk is (size > SPOOL_AT)
    assert b"".join(content.chunks(77_777)) == data
    with pytest.raises(TooLarge):
        Spool(size).write(data + b"x")
    content.close()
