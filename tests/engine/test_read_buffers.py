"""Tests that the memory of read buffers is kept, in a process of their own."""

from __future__ import annotations

import platform

import pytest
from cli_support import run_python

from kontext_async.engine.pools import READ_BUFFER

READS = 200

PROGRAM = f"""
import asyncio, resource, socket
from kontext_async import KontextSession

def count_page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def read_often(reader, writer):
    for _ in range({READS}):
        writer.send(b"a response")
        reader.recv({READ_BUFFER})

async def main():
    async with KontextSession("a-key", base_url="http://127.0.0.1:9"):
        reader, writer = socket.socketpair()
        with reader, writer:
            before = count_page_faults()
            read_often(reader, writer)
            print(count_page_faults() - before)

asyncio.run(main())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gets large blocks from the kernel each time")
def test_a_read_in_an_open_session_takes_no_page_fault() -> None:
    ran = run_python("-c", PROGRAM)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < READS / 4
