"""The emulator under random requests: `benchmarks.soak.junk`, small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from benchmarks.soak.junk import send_junk
from kontext_async.emulator import Emulator, FaultKind, Faults
from kontext_async.emulator.fault_specs import FAULT_SPECS

if TYPE_CHECKING:
    from emulator_support import Serve

pytestmark = pytest.mark.anyio


async def test_random_requests_cause_no_traceback_no_hang_and_no_leaked_task() -> None:
    emulator = Emulator(service_time=0, pixels=4096)
    await emulator.start()
    report = await send_junk(emulator, count=2000, seed=14)
    assert not any(report.problems.values()), report.problems
    assert report.statuses["200"] > 10
    assert report.statuses["400"] > 500


async def test_random_requests_to_a_faulty_emulator_cause_no_traceback_either() -> None:
    silent = {FaultKind.STALL, FaultKind.STALL_AFTER_ACCEPT, FaultKind.STALL_HALFWAY, FaultKind.MANY_URLS}
    kinds = [kind for kind in FaultKind if kind not in silent and not FAULT_SPECS[kind].seconds]
    emulator = Emulator(service_time=0, pixels=4096, faults=Faults(dict.fromkeys(kinds, 0.9 / len(kinds))))
    await emulator.start()
    report = await send_junk(emulator, count=500, seed=14)
    problems = {name: problem for name, problem in report.problems.items() if name != "internal errors"}
    assert not any(problems.values()), problems


async def test_the_log_has_neither_the_head_of_a_bad_request_nor_its_key(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caller = await serve()
    port = int(caller.emulator.base_url.rpartition(":")[2])
    caplog.set_level("DEBUG")
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nAuthorization: Bearer emulator-key\x00\r\n\r\n")
        assert b" 400 " in await stream.receive()
    records = [record for record in caplog.records if record.name == "kontext_async.emulator"]
    assert [record.getMessage().partition(":")[0] for record in records] == ["the request is no HTTP"]
    assert records[0].exc_info is None
