"""The benchmarks work, in the smallest sizes, and their results have the form that the runner expects.

No figure is judged.
"""

from __future__ import annotations

import json
import math
from functools import partial
from itertools import islice
from types import ModuleType
from typing import Any

import pytest

from benchmarks import connections, imports, makespan, memory, peers, runner, status_cpu
from benchmarks.contenders import Job
from benchmarks.contenders.__main__ import report_of
from benchmarks.gateway import Gateway
from benchmarks.measuring import interleaved, machine, median_ratio
from benchmarks.sampling import Sampler
from benchmarks.schedule import Plan, delays, ideal_makespan, makespan as makespan_of, unseen_over_time
from benchmarks.serving import server_process

FAST = Plan(median=0.02, sigma=0.1)
QUICKLY = {"initial_delay": 0.01, "interval": 0.01, "min_interval": 0.01}


def check_form(figures: dict[str, Any]) -> None:
    assert isinstance(figures["settings"], dict)
    assert figures["goals"]
    for line in figures["goals"]:
        assert set(line) == {"what", "value", "limit", "unit", "reached"}
        assert not math.isnan(line["value"])
    json.dumps(figures)


def test_service_times_are_the_same_for_every_client() -> None:
    times = list(islice(Plan(seed=3).service_times(), 50))
    assert times == list(islice(Plan(seed=3).service_times(), 50))
    assert times != list(islice(Plan(seed=4).service_times(), 50))


def test_ideal_makespan_starts_the_next_task_when_one_ends() -> None:
    assert ideal_makespan([3.0, 1.0, 1.0, 2.0], 2) == 4.0
    assert ideal_makespan([3.0, 1.0, 1.0, 2.0], 4) == 3.0


def test_account_of_a_record() -> None:
    tasks = [(10.0, 12.0, 12.5), (10.0, 11.0, 11.25)]
    assert makespan_of(tasks) == 2.5
    assert delays(tasks) == [0.25, 0.5]
    assert unseen_over_time(tasks, steps=2) == [(0.0, 2, 2), (1.25, 1, 1), (2.5, 0, 0)]


DIALECTS = {
    "kontext": ("/model/v1/generation", "/model/v1/generation/task/0000000001", "id", "in_progress", "completed"),
    "replicate": ("/v1/models/a/b/predictions", "/v1/predictions/0000000001", "id", "processing", "succeeded"),
    "runway": ("/v1/text_to_image", "/v1/tasks/0000000001", "id", "RUNNING", "SUCCEEDED"),
    "fal": ("/fal-ai/x/y", "/fal-ai/x/requests/0000000001/status", "request_id", "IN_PROGRESS", "COMPLETED"),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_server_speaks_the_dialects(name: str) -> None:
    create, status, key, pending, finished = DIALECTS[name]
    now = 0.0
    gateway = Gateway("http://here", lambda: now)
    gateway.reset(FAST)

    def body(answer: bytes) -> Any:
        head, _, payload = answer.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(payload)}".encode() in head
        return json.loads(payload)

    assert body(gateway.create(create.encode()))[key] == "0000000001"
    assert body(gateway.ask(status.encode()))["status"] == pending
    now = 1.0
    assert body(gateway.ask(status.encode()))["status"] == finished
    assert gateway.counts()["statuses"] == 2
    assert body(gateway.control(b"/_report", b""))["tasks"][0][2] == 1.0
    assert b" 404 " in gateway.ask(b"/model/v1/generation/task/9999999999")


@pytest.mark.parametrize("name", ["ours", "by_hand"])
def test_contenders_do_the_job(name: str) -> None:
    with server_process() as server:
        server.reset(FAST)
        options = {"interval": 0.01, "polling": QUICKLY, "limits": {"polls_per_second": 500.0}}
        report = report_of(name, Job(address=server.address, tasks=5, in_flight=3, options=options))
        counts = server.counts()
    assert not report.failures
    assert counts.creates == 5
    assert counts.statuses >= 5
    assert not counts.unknown


def test_makespan() -> None:
    case = makespan.Case(tasks=6, in_flight=3, plan=FAST, polling=QUICKLY, interval=0.01)
    figures = makespan.measure(cases={"few": case})
    check_form(figures)
    assert figures["cases"]["few"]["kontext_async"]["failures"] == {}
    assert makespan.describe(figures)


def test_status_cpu() -> None:
    figures = status_cpu.measure(sizes=status_cpu.Sizes(at_once=3, seconds=0.05, rounds=1, warm_up=0.02))
    check_form(figures)
    assert status_cpu.describe(figures)


def test_memory() -> None:
    figures = memory.measure(sizes=memory.Sizes(pending=120, steps=2, watched=0.05))
    check_form(figures)
    assert len(figures["memory"]["curve"]) == 3
    assert memory.describe(figures)


def test_imports() -> None:
    figures = imports.measure(sizes=imports.Sizes(rounds=1, statements=("import json", "import abc", "import enum")))
    check_form(figures)
    assert imports.describe(figures)


def test_connections() -> None:
    sizes = connections.Sizes(tasks=12, in_flight=3, plan=FAST, polling=QUICKLY, every=0.02)
    figures = connections.measure(sizes=sizes)
    check_form(figures)
    assert connections.describe(figures)


def test_peers_by_hand() -> None:
    sizes = peers.Sizes(tasks=3, in_flight=(3,), plan=FAST, peers=("aiohttp by hand, 0.5 s",), polling=QUICKLY)
    figures = peers.measure(sizes=sizes)
    assert set(figures["cases"]["3 in flight"]) == {"kontext_async", "aiohttp by hand, 0.5 s"}
    assert peers.describe(figures)


def test_interleaved_runs_alternate() -> None:
    order: list[str] = []

    def run_of(name: str) -> float:
        order.append(name)
        return 1.0

    runs = interleaved({name: partial(run_of, name) for name in "ab"}, 2)
    assert order == ["a", "b", "b", "a"]
    assert median_ratio(runs["a"], runs["b"]) == 1.0


def test_sampler_divides_the_whole() -> None:
    with Sampler() as sampler:
        while not sampler.samples:
            sum(range(1000))
    assert sum(sampler.shares(10.0)["packages"].values()) == pytest.approx(10.0)


def test_runner_saves_and_prints(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"what": "a thing", "value": 2.0, "limit": 1.0, "unit": "ms", "reached": False}
    module = ModuleType("stub")
    module.measure = lambda quick: {"settings": {"quick": quick}, "goals": [line]}  # type: ignore[attr-defined]
    results = runner.run({"stub": module}, quick=True, out=tmp_path)
    saved = json.loads((tmp_path / "stub.json").read_text())
    assert saved == results["stub"]
    assert set(saved) == {"command", "seconds", "machine", "figures"}
    assert set(saved["machine"]) == set(machine())
    assert "a thing" in capsys.readouterr().out
    assert "| a thing | 2 ms | <= 1 ms |" in (tmp_path / "table.md").read_text()


def test_command_runs_one_benchmark(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "measure", lambda quick: {"goals": [], "cpu_ms": {}, "self_ms_by_package": {}})
    monkeypatch.setattr(imports, "describe", lambda figures: ["nothing"])
    assert runner.main(["--only", "imports", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "imports.json").exists()


def test_figures_are_drawn(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    row = {"makespan_ratio": 1.0, "ideal": 1.0, "time_line": [(0.0, 1, 1), (1.0, 0, 0)]}
    makespan.draw({"cases": {"few": {"kontext_async": row, "by hand": row}}}, tmp_path / "makespan.png")
    memory.draw({"memory": {"curve": [(0, 0), (10, 4500)], "bytes_without_handles": 400.0}}, tmp_path / "memory.png")
    bars = {"cpu_ms_per_task": 1.0, "makespan_ratio": 1.0, "requests_per_task": 3.0, "delay_p95": 0.1}
    peers.draw({"cases": {"few": {"kontext_async": bars, "other": bars}}}, tmp_path / "peers.png")
    assert len(list(tmp_path.glob("*.png"))) == 3
