"""Black Forest Labs' dialect of the emulator, over HTTP with requests that are written out here."""

from __future__ import annotations

import io
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from emulator_support import Reply
from PIL import Image
from yarl import URL

from kontext_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from emulator_support import Caller, ManualTime, Serve

pytestmark = pytest.mark.anyio

PRO, MAX = "/v1/flux-kontext-pro", "/v1/flux-kontext-max"
NO_KEY = {"Authorization": ""}


async def create(caller: Caller, path: str = PRO, *, base: str = "", key: str | None = None, **fields: Any) -> Reply:
    headers = {**NO_KEY, "x-key": caller.emulator.api_key if key is None else key}
    content = {"prompt": "a red fox", **fields}
    return await caller.request("POST", base + path, json=content, headers=headers)


async def get(caller: Caller, url: str, key: str | None = None) -> Reply:
    """Send a GET to a URL, which gets the key only here."""
    headers = NO_KEY if key is None else {**NO_KEY, "x-key": key}
    async with caller.http.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
        return Reply(response.status, response.headers, await response.read())


async def test_a_task_runs_from_create_request_to_image(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=10)
    created = await create(caller, aspect_ratio="16:9", seed=7)
    assert created.status == 200
    task = created.json
    assert UUID(task["id"]).version == 4
    port = urlsplit(caller.emulator.base_url).port
    assert task == {
        "id": task["id"],
        "polling_url": f"http://localhost:{port}/v1/get_result?id={task['id']}",
        "cost": 4.0,
        "input_mp": 0.0,
        "output_mp": 0.0,
    }
    clock.advance(4)
    assert (await get(caller, task["polling_url"])).json == {
        "id": task["id"],
        "status": "Pending",
        "result": None,
        "progress": 0.4,
        "details": None,
        "preview": None,
    }
    clock.advance(6)
    done = (await get(caller, task["polling_url"])).json
    assert (done["status"], done["progress"]) == ("Ready", None)
    result = done["result"]
    assert (result["prompt"], result["seed"]) == ("a red fox", 7)
    assert result["end_time"] - result["start_time"] == pytest.approx(result["duration"]) == 8.0
    image = await get(caller, result["sample"])
    assert image.headers["Content-Type"] == "image/png"
    width, height = Image.open(io.BytesIO(image.body)).size
    assert width / height == pytest.approx(16 / 9, rel=0.05)
    assert caller.emulator.ledger.spent == Decimal("0.04")


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
async def test_every_format_is_painted(serve: Serve, output_format: str) -> None:
    caller = await serve()
    task = (await create(caller, output_format=output_format)).json
    sample = (await get(caller, task["polling_url"])).json["result"]["sample"]
    assert Image.open(io.BytesIO((await get(caller, sample)).body)).format == output_format.upper()


async def test_a_status_needs_no_key_and_refuses_a_wrong_one(serve: Serve) -> None:
    caller = await serve(api_key=None)
    task = (await create(caller, key="mine")).json
    assert (await get(caller, task["polling_url"])).status == 200
    assert (await get(caller, task["polling_url"], "mine")).status == 200
    assert (await get(caller, task["polling_url"], "yours")).json["status"] == "Task not found"
    strict = await serve()
    task = (await create(strict)).json
    assert (await get(strict, task["polling_url"], "wrong")).status == 401


async def test_creates_and_credits_need_the_key(serve: Serve) -> None:
    caller = await serve(balance="1")
    for key in ("", "wrong"):
        assert (await create(caller, key=key)).status == 401
        assert (await get(caller, f"{caller.emulator.base_url}/v1/credits", key)).status == 401
    await create(caller)
    assert (await get(caller, f"{caller.emulator.base_url}/v1/credits", caller.emulator.api_key)).json == {
        "credits": 96.0
    }
    bearer = await caller.request("POST", PRO, json={"prompt": "x"})
    assert bearer.status == 401


async def test_refusals_have_the_documented_shapes(serve: Serve) -> None:
    caller = await serve(balance="0.04", max_tasks=1, service_time=100)
    missing = await caller.request("POST", PRO, json={}, headers={**NO_KEY, "x-key": caller.emulator.api_key})
    assert (missing.status, missing.json) == (
        422,
        {"detail": [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]},
    )
    wrong: dict[str, Any]
    for wrong in (
        {"seed": "x"},
        {"aspect_ratio": "1:9"},
        {"output_format": "gif"},
        {"prompt_upsampling": None},
        {"safety_tolerance": 7},
        {"input_image": "data:image/png;base64,aGk="},
        {"webhook_url": "not a URL"},
        {"webhook_url": ""},
        {"webhook_url": "https://a/" + "x" * 2083},
        {"webhook_secret": 7},
    ):
        reply = await create(caller, **wrong)
        assert reply.status == 422
        assert reply.json["detail"][0]["loc"] == ["body", next(iter(wrong))]
    assert (await create(caller, "/v1/flux-kontext")).json == {"detail": "Not Found"}
    nulls: dict[str, Any] = dict.fromkeys(("seed", "input_image", "aspect_ratio", "output_format", "webhook_url"))
    assert (await create(caller, **nulls, guidance=3, steps=30)).status == 200
    full = await create(caller)
    assert (full.status, "Retry-After" in full.headers) == (429, False)
    poor = await serve(balance="0.01")
    reply = await create(poor)
    assert (reply.status, reply.json) == (402, {"detail": "Insufficient credits"})
    assert poor.emulator.ledger.billed == 0


async def test_a_model_may_have_a_limit_of_its_own(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=10, max_tasks=3, max_tasks_by_model={"flux_kontext_max": 1})
    statuses = [(await create(caller, path)).status for path in (MAX, MAX, PRO, PRO, PRO)]
    assert statuses == [200, 429, 200, 200, 429]
    clock.advance(10)
    assert (await create(caller, MAX)).status == 200


class TestRegions:
    async def test_regions_do_not_know_the_tasks_of_each_other(self, serve: Serve) -> None:
        caller = await serve(regions=2)
        first, second = caller.emulator.region_urls
        here = (await create(caller, base=first)).json
        there = (await create(caller, base=second)).json
        assert here["polling_url"].startswith(first)
        assert there["polling_url"].startswith(second)
        for task, own, other in ((here, first, second), (there, second, first)):
            assert (await get(caller, task["polling_url"])).json["status"] == "Ready"
            assert urlsplit(task["polling_url"]).netloc == urlsplit(own).netloc
            unknown = await get(caller, f"{other}/v1/get_result?id={task['id']}")
            assert (unknown.status, unknown.json["status"]) == (404, "Task not found")

    async def test_the_base_url_leads_to_the_regions_in_turn(self, serve: Serve) -> None:
        caller = await serve(regions=2)
        urls = [(await create(caller)).json["polling_url"] for _ in range(4)]
        assert len({urlsplit(url).netloc for url in urls}) == 2
        task_id = parse_qs(urlsplit(urls[0]).query)["id"][0]
        by_id = f"{caller.emulator.base_url}/v1/get_result?id={task_id}"
        assert {(await get(caller, by_id)).status for _ in range(2)} == {200, 404}

    async def test_one_region_is_a_single_cluster(self, serve: Serve) -> None:
        caller = await serve()
        task = (await create(caller)).json
        by_id = f"{caller.emulator.base_url}/v1/get_result?id={task['id']}"
        assert (await get(caller, by_id)).json["status"] == "Ready"

    async def test_origins_can_be_given(self, serve: Serve) -> None:
        origins = ("https://api.us1.bfl.ai", "https://api.eu2.bfl.ai")
        caller = await serve(region_origins=origins)
        url = (await create(caller)).json["polling_url"]
        assert url.startswith(origins)
        parts = urlsplit(url)
        for host in ("api.us1.bfl.ai", "api.eu2.bfl.ai"):
            reply = await caller.request("GET", f"{parts.path}?{parts.query}", headers={"Host": host, **NO_KEY})
            assert reply.status == (200 if parts.netloc == host else 404)


class TestOutcomes:
    @pytest.mark.parametrize("stage", ["request", "content"])
    async def test_a_moderated_task_is_not_billed(self, serve: Serve, clock: ManualTime, stage: str) -> None:
        caller = await serve(clock=clock, service_time=10, bill_failed=True)
        caller.emulator.faults.script("create", [Fault(kind="task-moderated", variant=stage, message="Violence")])
        task = (await create(caller)).json
        assert task["cost"] == 4.0
        before = (await get(caller, task["polling_url"])).json["status"]
        assert before == ("Request Moderated" if stage == "request" else "Pending")
        clock.advance(10)
        done = (await get(caller, task["polling_url"])).json
        assert done["status"] == f"{stage.capitalize()} Moderated"
        assert done["details"] == {"Moderation Reasons": ["Violence"]}
        assert caller.emulator.ledger.spent == 0

    async def test_a_failed_task_says_why(self, serve: Serve) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", [Fault(kind="task-fails", message="out of memory")])
        task = (await create(caller)).json
        done = (await get(caller, task["polling_url"])).json
        assert (done["status"], done["details"]) == ("Error", {"Error": ["out of memory"]})

    async def test_a_task_is_not_found_at_first(self, serve: Serve, clock: ManualTime) -> None:
        caller = await serve(clock=clock)
        caller.emulator.faults.script("create", [Fault(kind="task-late", seconds=2)])
        task = (await create(caller)).json
        late = await get(caller, task["polling_url"])
        assert (late.status, late.json["id"], late.json["status"]) == (404, task["id"], "Task not found")
        clock.advance(2)
        assert (await get(caller, task["polling_url"])).json["status"] == "Ready"

    @pytest.mark.parametrize(
        ("cost_at", "created", "settled"),
        [("create", 4.0, None), ("result", None, 4.0), ("both", 4.0, 4.0), ("never", None, None)],
    )
    async def test_the_cost_stands_where_it_shall(
        self, serve: Serve, cost_at: str, created: float | None, settled: float | None
    ) -> None:
        caller = await serve(cost_at=cost_at)
        task = (await create(caller)).json
        assert task["cost"] == created
        assert (await get(caller, task["polling_url"])).json.get("cost") == settled


class TestFaults:
    @pytest.mark.parametrize(
        ("variant", "expected"),
        [
            ("missing", None),
            ("null", None),
            ("relative", "/v1/get_result?id="),
            ("elsewhere", "https://polls.invalid/v1/get_result?id="),
            ("user", "http://user:password@localhost"),
            ("http", "http://api.us1.bfl.ai/"),
            ("port", "https://api.us1.bfl.ai:8443/"),
            ("suffix", "https://api.bfl.ai.invalid/"),
            ("no-host", "https://"),
            ("script", "javascript:"),
            ("long", "http://localhost"),
        ],
    )
    async def test_an_odd_address(self, serve: Serve, variant: str, expected: str | None) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", [Fault(kind="odd-address", variant=variant)])
        task = (await create(caller)).json
        address = task.get("polling_url")
        assert address is None if expected is None else address.startswith(expected)
        assert ("polling_url" in task) is (variant != "missing")
        assert caller.emulator.ledger.billed == 1

    async def test_an_address_of_the_own_choice(self, serve: Serve) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", [Fault(kind="odd-address", location="https://evil.example/")])
        assert (await create(caller)).json["polling_url"] == "https://evil.example/"

    async def test_a_cut_response_has_the_id(self, serve: Serve) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", ["cut-address"])
        body = (await create(caller)).body
        assert body.startswith(b'{"id": "')
        assert b'", "polling_url": "http' in body
        assert not body.endswith(b"}")
        assert caller.emulator.ledger.billed == 1

    async def test_errors_in_a_success_are_not_billed(self, serve: Serve) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", ["errors-in-success"])
        reply = await create(caller)
        assert (reply.status, list(reply.json)) == (200, ["errors"])
        assert caller.emulator.ledger.billed == 0

    async def test_a_status_may_come_with_another_http_status(self, serve: Serve) -> None:
        caller = await serve()
        task = (await create(caller)).json
        caller.emulator.faults.script("status", ["status-in-error", "not-found-in-success", None])
        replies = [await get(caller, task["polling_url"]) for _ in range(3)]
        assert [(each.status, each.json["status"]) for each in replies] == [
            (503, "Ready"),
            (200, "Task not found"),
            (200, "Ready"),
        ]

    @pytest.mark.parametrize(
        ("fault", "status", "text"),
        [
            (Fault(kind="http-status", status=422, message="Invalid API key format"), 422, "Invalid API key format"),
            (Fault(kind="balance-too-low"), 402, "balance"),
            (Fault(kind="rate-limited", retry_after=""), 429, "too many requests"),
        ],
    )
    async def test_errors_have_a_detail(self, serve: Serve, fault: Fault, status: int, text: str) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", [fault])
        reply = await create(caller)
        assert reply.status == status
        assert text in reply.json["detail"]

    async def test_the_key_is_echoed_from_its_header(self, serve: Serve) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", [Fault(kind="echoed-key", variant="header")])
        assert caller.emulator.api_key is not None
        assert caller.emulator.api_key in (await create(caller)).json["detail"]

    @pytest.mark.parametrize(
        ("fault", "field", "values"),
        [
            (Fault(kind="odd-status", variant="done"), "status", {"ready"}),
            (Fault(kind="odd-status", variant="FAILED"), "status", {"Ready"}),
            (Fault(kind="odd-output", variant="null"), "result", {None}),
            (Fault(kind="extra-keys"), "object", {"generation"}),
        ],
    )
    async def test_odd_statuses(self, serve: Serve, fault: Fault, field: str, values: set[Any]) -> None:
        caller = await serve()
        task = (await create(caller)).json
        caller.emulator.faults.script("status", [fault])
        assert (await get(caller, task["polling_url"])).json[field] in values

    @pytest.mark.parametrize("variant", ["number", "empty", "null", "missing", "no-usage"])
    async def test_odd_costs(self, serve: Serve, variant: str) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", [Fault(kind="odd-cost", variant=variant)])
        cost = (await create(caller)).json.get("cost")
        assert cost == {"number": 4, "empty": ""}.get(variant)

    async def test_hostile_contents(self, serve: Serve) -> None:
        caller = await serve()
        task = (await create(caller)).json
        assert caller.emulator.api_key is not None
        script: list[Fault | str | None] = [
            Fault(kind="echoed-key-in-task", variant="texts"),
            Fault(kind="odd-url", location="https://evil.example/"),
            "opaque-url",
        ]
        caller.emulator.faults.script("status", script)
        marked, odd, opaque = [(await get(caller, task["polling_url"])).json["result"] for _ in script]
        assert caller.emulator.api_key in marked["prompt"]
        assert odd["sample"] == "https://evil.example/"
        assert (await get(caller, opaque["sample"])).status == 200


class TestImages:
    async def test_a_url_has_its_expiry_to_the_second(self, serve: Serve, clock: ManualTime) -> None:
        caller = await serve(clock=clock, url_lifetime=600)
        task = (await create(caller)).json
        sample = (await get(caller, task["polling_url"])).json["result"]["sample"]
        query = parse_qs(urlsplit(sample).query)
        assert datetime.fromisoformat(query["se"][0]).timestamp() == int(clock.now + 600)
        assert "%3A" in sample
        clock.advance(599)
        assert (await get(caller, sample)).status == 200
        clock.advance(1)
        assert (await get(caller, sample)).status == 403
        assert (await get(caller, sample.replace("sig=", "sig=x"))).status == 403

    @pytest.mark.parametrize("renews", [True, False])
    async def test_asking_again_may_give_a_fresh_url(self, serve: Serve, clock: ManualTime, renews: bool) -> None:  # noqa: FBT001 # a parameter
        caller = await serve(clock=clock, renews_urls=renews)
        task = (await create(caller)).json
        samples = []
        for _ in range(2):
            samples.append((await get(caller, task["polling_url"])).json["result"]["sample"])
            clock.advance(601)
        assert (samples[0] != samples[1]) is renews


class TestFireworks:
    async def test_a_task_runs_at_its_addresses(self, serve: Serve) -> None:
        caller = await serve()
        path = caller.emulator.fireworks_url.removeprefix(caller.emulator.base_url) + "/flux-kontext-pro"
        created = (await caller.request("POST", path, json={"prompt": "a fox"})).json
        assert list(created) == ["request_id"]
        status = await caller.request("POST", f"{path}/get_result", json={"id": created["request_id"]})
        assert status.json["status"] == "Ready"
        assert (await caller.request("POST", f"{path}/get_result", json={"id": "x"})).status == 404
        for body in (b"", b"[]", b'{"id": 7}'):
            assert (await caller.request("POST", f"{path}/get_result", data=body)).status == 404
        assert (await caller.request("POST", f"{path}/get_result", json={}, headers=NO_KEY)).status == 401
        assert (await caller.request("POST", path, json={"prompt": "x"}, headers=NO_KEY)).status == 401


@pytest.mark.parametrize(
    "options",
    [
        {"regions": 0},
        {"max_tasks_by_model": {"m": -1}},
        {"max_tasks_by_model": [1]},
        {"cost_at": "sometimes"},
        {"webhook_forms": ()},
        {"webhook_forms": ("none",)},
        {"renews_urls": 1},
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Emulator(**options)
