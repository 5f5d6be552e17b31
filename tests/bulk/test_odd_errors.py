"""One odd URL, answer or error fails one request: the run goes on, and so does every later run."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from http_support import JPEG, Request, http_response, scripted_server

from kontext_async import DownloadFailed, KontextSession, SubmissionUncertain, TaskFailed, TaskNotFound
from kontext_async.bulk import BulkRun
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.store.records import error_from_row
from kontext_async.store.rows import Row
from kontext_async.store.steps import State
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from pathlib import Path

    from bulk_support import Folder, RunRequests

    from kontext_async import Generation, GenerationTask

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(6)]


class OddSession(KontextSession):
    """Raises an error that nobody foresaw for one request."""

    odd = "fox 2"
    when = "save"

    def share(self, *_: Any, **__: Any) -> OddSession:
        return self

    def _patient(self) -> OddSession:
        return self

    async def submit(self, request: Any, **options: Any) -> GenerationTask:
        if self.when == "submit" and request.prompt == self.odd:
            raise UnicodeError("label empty: https://cdn/x?signature=secret")
        return await super().submit(request, **options)

    async def save(self, source: Any, path: Any, *, durable: bool = False) -> Any:
        if self.when == "save" and "fox-2" in str(path):
            raise ValueError("embedded null byte: https://cdn/x?signature=secret")
        return await super().save(source, path, durable=durable)


@pytest.mark.parametrize("when", ["save", "submit"])
async def test_an_error_that_nobody_foresaw_fails_one_request(emulator: Emulator, folder: Folder, when: str) -> None:
    for expected in ((5, 0), (0, 5)):
        async with OddSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
            session.when = when
            report = await BulkRun(session, folder.path).execute(FOXES)
        assert (report.completed, report.skipped) == expected
        assert report.failed == {"DownloadFailed" if when == "save" else "KontextError": 1}
        assert report.stopped is None
    assert "secret" not in (folder.path / "index.html").read_text()
    assert "secret" not in json.dumps(folder.rows(), default=repr)
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        report = await BulkRun(session, folder.path).execute(FOXES)
    assert report.complete
    assert emulator.ledger.accepted == 6


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b/x.png",
        f"http://{'a' * 64}.example/x.png",
        "http://[::1/x.png",
        "http://127.0.0.1:99999/x.png",
        "http://\ud800/x.png",
        "//x",
        "data:,x",
        "http://",
        "",
    ],
)
async def test_an_odd_url_of_an_image_fails_its_request_on_every_run(folder: Folder, url: str) -> None:
    def respond(request: Request) -> bytes:
        if request.target.startswith("/image"):
            return http_response(JPEG)
        odd = b"odd" in request.body or request.target.endswith("odd")
        result = url if odd else f"{server.url}/image.jpg"
        task = {"id": "task-odd" if odd else f"task-{len(server.requests)}", "status": "completed"}
        return http_response(json.dumps(task | {"output": [{"content": [{"type": "image", "url": result}]}]}).encode())

    async with scripted_server(respond) as server:
        for done in ((2, 0), (0, 2)):
            async with KontextSession("key", base_url=server.url, settings=FAST) as session:
                report = await BulkRun(session, folder.path).execute(["fox", "odd", "wolf"])
            assert (report.completed, report.skipped) == done, report
            assert sum(report.failed.values()) == 1
            assert report.stopped is None


async def test_one_odd_request_of_the_input_fails_alone(run: RunRequests, emulator: Emulator) -> None:
    class Odd:
        def __fspath__(self) -> str:
            raise RuntimeError("no path")

    odd = [{"prompt": "a", "input_images": Odd()}, {"prompt": "a", "input_images": "x" * 5000}, {"prompt": object()}]
    report = await run(["fox", *odd, "wolf"])
    assert (report.completed, report.failed) == (2, {"InvalidRequest": 3})
    assert emulator.ledger.accepted == 2


async def test_a_task_id_for_several_requests_is_one_payment(folder: Folder) -> None:
    def respond(request: Request) -> bytes:
        if request.target.startswith("/image"):
            return http_response(JPEG)
        task = {"id": "same", "status": "completed", "usage": {"cost": "0.04"}}
        content = [{"type": "image", "url": f"{server.url}/image.jpg"}]
        return http_response(json.dumps(task | {"output": [{"content": content}]}).encode())

    async with (
        scripted_server(respond) as server,
        KontextSession("key", base_url=server.url, settings=FAST) as session,
    ):
        report = await BulkRun(session, folder.path).execute(FOXES)
    assert (report.completed, report.spent, report.total_spent) == (6, Decimal("0.04"), Decimal("0.04"))


async def test_an_uncertain_request_says_so_once_in_every_run(emulator: Emulator, folder: Folder) -> None:
    emulator.faults.script("create", ["cut-after-accept"])
    texts = []
    for _ in range(3):
        async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
            (outcome,) = [each async for each in BulkRun(session, folder.path).outcomes(["fox"])]
        assert isinstance(outcome.error, SubmissionUncertain)
        texts.append(str(outcome.error))
    assert len(set(texts)) == 1
    assert texts[0].count("may have accepted") == 1


def make_row(state: State, error: dict[str, Any] | None) -> Row:
    digest = bytes.fromhex("ab" * 32)
    return Row(
        id=1, run=1, key="k", state=state, digest=digest, model="m", images=0, prompt="fox", task_id="t1", error=error
    )


def test_an_uncertain_request_of_an_earlier_version_says_so_once() -> None:
    first = SubmissionUncertain(request=None, fingerprint="ab" * 32, seen="no response within 120 s")
    known = error_from_row(make_row(State.UNCERTAIN, {"type": "SubmissionUncertain", "message": str(first)}), None)
    assert str(known) == str(first)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (TaskFailed(task_id="t1", code="7", message="no (task x) image"), State.FAILED),
        (TaskNotFound("gone", task_id="t1", request_id="r1"), State.EXPIRED),
    ],
)
def test_a_recorded_error_names_its_task_once(error: TaskFailed | TaskNotFound, state: State) -> None:
    recorded = {"type": type(error).__name__, "message": str(error), "code": getattr(error, "code", None)}
    known = error_from_row(make_row(state, recorded), None)
    assert str(known).count("t1") == 1
    assert str(known).startswith(str(error.args[0]))


async def test_a_full_disk_stops_the_run_and_a_broken_network_does_not(
    emulator: Emulator, folder: Folder, tmp_path: Path
) -> None:
    class NoDisk(KontextSession):
        number = 28

        async def save(self, source: Generation | Any, path: Any, *, durable: bool = False) -> Any:
            raise DownloadFailed(url="x", reason="cannot be written") from OSError(self.number, "x")

    for number, stops in ((28, True), (111, False)):
        async with NoDisk(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
            session.number = number
            report = await BulkRun(session, tmp_path / str(number)).execute(FOXES)
        assert (report.stopped is not None) == stops
    assert folder.path.exists() is False


async def test_a_currency_that_is_not_usd_stops_a_run_with_a_limit(run: RunRequests, emulator: Emulator) -> None:
    emulator.faults.set_rate(Fault(kind=FaultKind.NONSENSE_COST, variant="credit"), 1.0)
    report = await run(FOXES, max_cost=Decimal(1))
    assert type(report.stopped).__name__ == "CostUnknown"
    assert "bills in 'credit' and not in USD" in str(report.stopped)
    assert emulator.ledger.accepted <= 1
    assert report.spent == 0
    assert (await run(FOXES)).spent == 0, "credits are not dollars"


@pytest.mark.parametrize(
    "variant", ["negative", "tiny-exponent", "huge-exponent", "digits", "not-a-number", "infinite"]
)
async def test_a_cost_that_makes_no_sense_does_not_defeat_a_limit(
    run: RunRequests, folder: Folder, emulator: Emulator, variant: str
) -> None:
    emulator.faults.set_rate(Fault(kind=FaultKind.NONSENSE_COST, variant=variant), 1.0)
    report = await run(FOXES, max_cost=Decimal("0.10"))
    assert report.stopped is not None
    assert emulator.ledger.accepted <= 3
    assert report.spent >= 0
    assert (folder.path / "results.jsonl").stat().st_size < 20_000
