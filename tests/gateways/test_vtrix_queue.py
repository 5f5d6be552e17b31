"""The queue dialect: PROTOCOL.md, "The queue dialect", row by row."""

from __future__ import annotations

from typing import Any

import pytest
from gateways_support import ID, IMAGE_URL, KEY, MODEL, body_of, new_gateway, refer, respond

from kontext_async.errors import GatewayError, InvalidRequest, InvalidResponse
from kontext_async.gateways import CancelReply, GatewayRequest, Purpose, Reference, find_reference
from kontext_async.models import FailureKind, KontextRequest, TaskState, TaskStatus
from kontext_async.protocol.tasks import InProgress

GATEWAY = new_gateway("vtrix-queue")
BASE = "https://cloud.vtrix.ai"
PATH = f"/model/v1/queue/{MODEL}/requests/{ID}"
TASK = refer("vtrix-queue")
STATUS = GATEWAY.status(TASK)
OUTPUTS = [{"type": "image", "url": IMAGE_URL, "content_type": "image/jpeg", "width": 8, "height": 8}]


def read_status(content: Any, status: int = 200) -> TaskStatus:
    read = GATEWAY.read_status(TASK, STATUS, respond(content, status))
    assert isinstance(read, TaskStatus)
    return read


def follow(content: Any, task: Reference = TASK) -> GatewayRequest:
    """Return the request that follows a status of a completed task."""
    read = GATEWAY.read_poll(task, GATEWAY.status(task), respond(content))
    assert isinstance(read, GatewayRequest)
    return read


def accept(**fields: Any) -> Reference:
    return GATEWAY.read_created(respond({"request_id": ID, **fields}), model=MODEL).reference


class TestRequests:
    def test_the_addresses_have_the_model(self) -> None:
        create = GATEWAY.create(KontextRequest("a fox", model="flux_kontext_max"), ())
        assert str(create.url) == f"{BASE}/model/v1/queue/flux_kontext_max"
        assert str(STATUS.url) == f"{BASE}{PATH}/status"
        cancel = GATEWAY.cancel(TASK)
        assert (cancel.purpose, cancel.method, str(cancel.url)) == (Purpose.CANCEL, "PUT", f"{BASE}{PATH}/cancel")
        assert cancel.headers["Authorization"] == f"Bearer {KEY}"

    def test_the_body_is_the_bare_fields(self) -> None:
        assert body_of(GATEWAY.create(KontextRequest("a fox", seed=1), ())) == {"prompt": "a fox", "seed": 1}

    def test_prices_and_the_balance_are_those_of_the_plain_dialect(self) -> None:
        price = GATEWAY.estimate(KontextRequest("a fox"), ())
        assert isinstance(price, GatewayRequest)
        assert str(price.url) == f"{BASE}/model/v1/generation/precharge"
        assert body_of(price) == {"model": MODEL, "input": [{"params": {"prompt": "a fox"}}]}
        assert str(GATEWAY.balance().url) == f"{BASE}/api/v1/user/balance"

    def test_an_id_needs_its_model(self) -> None:
        with pytest.raises(InvalidRequest, match="vtrix-queue:ID@MODEL"):
            find_reference(GATEWAY, f"vtrix-queue:{ID}")
        assert find_reference(GATEWAY, f"vtrix-queue:{ID}@{MODEL}") == TASK


class TestAddresses:
    def test_the_usual_addresses_are_not_kept(self) -> None:
        usual = {f"{step}_url": f"{BASE}{PATH}/{step}" for step in ("status", "response", "cancel")}
        assert accept(**usual) == TASK
        assert accept() == TASK

    def test_addresses_on_the_origin_of_the_base_url_are_used_as_they_came(self) -> None:
        task = accept(status_url=f"{BASE}/s?a=%7E", response_url="/r?b=1", cancel_url=f"{BASE}/c")
        assert task.addresses == (f"{BASE}/s?a=%7E", f"{BASE}/r?b=1", f"{BASE}/c")
        assert str(GATEWAY.status(task).url) == f"{BASE}/s?a=%7E"
        assert str(GATEWAY.cancel(task).url) == f"{BASE}/c"
        assert str(follow({"request_id": ID, "status": "COMPLETED"}, task).url) == f"{BASE}/r?b=1"
        assert find_reference(GATEWAY, str(task)) == task

    @pytest.mark.parametrize(
        "address",
        [
            "https://evil.example/s?a=1",
            "http://cloud.vtrix.ai/s?a=1",
            "https://cloud.vtrix.ai:8443/s?a=1",
            "https://user:password@cloud.vtrix.ai/s?a=1",
            "//evil.example/s?a=1",
        ],
    )
    def test_of_an_address_elsewhere_the_path_counts_at_the_base_url(self, address: str) -> None:
        task = accept(status_url=address)
        assert str(GATEWAY.status(task).url) == f"{BASE}/s?a=1"

    def test_a_proxy_before_the_gateway_keeps_its_path(self) -> None:
        gateway = new_gateway("vtrix-queue", "http://127.0.0.1:8080/proxy")
        content = {"request_id": ID, "status_url": f"{BASE}{PATH}/status"}
        assert gateway.read_created(respond(content), model=MODEL).reference == TASK

    @pytest.mark.parametrize("address", ["", " ", None, 7, ["x"], "ftp://cloud.vtrix.ai/s", "https://", "\ud800"])
    def test_an_unusable_address_is_no_address(self, address: Any) -> None:
        assert accept(status_url=address) == TASK

    def test_a_foreign_address_in_a_reference_is_refused(self) -> None:
        foreign = Reference(ID, "vtrix-queue", model=MODEL, addresses=("https://evil.example/s",))
        with pytest.raises(InvalidRequest, match="not a trusted host"):
            find_reference(GATEWAY, foreign)

    def test_the_response_address_of_a_status_is_used_at_the_base_url(self) -> None:
        content = {"request_id": ID, "status": "COMPLETED", "response_url": "https://evil.example/r?x=1"}
        assert str(follow(content).url) == f"{BASE}/r?x=1"


class TestCreated:
    def test_a_cut_response_with_the_id_is_accepted(self) -> None:
        cut = b'{"request_id": "' + ID.encode() + b'", "status_url": "https://cloud.vtr'
        assert GATEWAY.read_created(respond(cut), model=MODEL).reference == TASK
        create = GATEWAY.create(KontextRequest("a fox"), ())
        assert GATEWAY.is_readable(create, 200, cut)
        assert not GATEWAY.is_readable(create, 200, cut[:20])
        assert not GATEWAY.is_readable(STATUS, 200, cut)

    def test_a_refusal_with_a_2xx_is_not_accepted(self) -> None:
        content = {"request_id": "r1", "status": {"code": 403, "message": "low balance", "error_code": 40201}}
        with pytest.raises(GatewayError, match="low balance") as caught:
            GATEWAY.read_created(respond(content), model=MODEL)
        assert not isinstance(caught.value, InvalidResponse)

    def test_a_task_that_completed_at_once_is_polled_for_its_result(self) -> None:
        created = GATEWAY.read_created(respond({"request_id": ID, "status": "COMPLETED"}), model=MODEL)
        assert created.status.state is TaskState.IN_PROGRESS
        whole = GATEWAY.read_created(
            respond({"request_id": ID, "status": "COMPLETED", "outputs": OUTPUTS}), model=MODEL
        )
        assert whole.status.state is TaskState.COMPLETED


class TestStatus:
    @pytest.mark.parametrize("word", ["IN_QUEUE", "in_queue", "IN_PROGRESS", "In Progress", "queued"])
    def test_unfinished(self, word: str) -> None:
        assert read_status({"request_id": ID, "status": word, "logs": []}).state is TaskState.IN_PROGRESS

    @pytest.mark.parametrize("word", ["COMPLETED", "completed", "succeeded", "SUCCESS", "success"])
    def test_completed_needs_the_result(self, word: str) -> None:
        request = follow({"request_id": ID, "status": word, "error": None})
        assert (request.purpose, request.method) == (Purpose.RESULT, "GET")
        assert str(request.url) == f"{BASE}{PATH}/response"

    @pytest.mark.parametrize("word", ["failed", "FAILED", "error"])
    def test_failed(self, word: str) -> None:
        status = read_status({"request_id": ID, "status": word, "error": "no", "error_type": "REQUEST_INVALID"})
        assert status.state is TaskState.FAILED
        assert status.error is not None
        assert (status.error.code, status.error.message) == ("REQUEST_INVALID", "no")
        assert status.error.kind is FailureKind.ERROR

    @pytest.mark.parametrize(
        "content",
        [
            {"status": "cancelled"},
            {"status": "CANCELED"},
            {"status": "COMPLETED", "error": "x", "error_type": "CANCELLED"},
        ],
    )
    def test_cancelled(self, content: dict[str, Any]) -> None:
        status = read_status({"request_id": ID, **content})
        assert status.error is not None
        assert status.error.kind is FailureKind.CANCELLED

    def test_the_result_may_stand_in_the_status(self) -> None:
        status = read_status({"request_id": ID, "status": "COMPLETED", "outputs": OUTPUTS})
        assert [image.url for image in status.images] == [IMAGE_URL]

    def test_an_error_after_completed_is_a_failure(self) -> None:
        content = {
            "request_id": ID,
            "status": "COMPLETED",
            "error": "the worker died",
            "error_type": "INFERENCE_FAILURE",
            "provider_error": {"code": "E7", "message": "out of memory"},
        }
        status = read_status(content)
        assert status.state is TaskState.FAILED
        assert status.error is not None
        assert (status.error.code, status.error.message) == ("E7", "the worker died")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"error": {"code": "E1", "message": "nested"}}, "nested"),
            ({"error": "", "provider_error": {"message": "provider"}}, "provider"),
            ({"error": "", "error_type": "TYPE"}, "TYPE"),
            ({"error": ""}, "no reason was given"),
        ],
    )
    def test_a_reason_is_found_wherever_it_stands(self, fields: dict[str, Any], message: str) -> None:
        status = read_status({"request_id": ID, "status": "COMPLETED", **fields})
        assert status.error is not None
        assert status.error.message == message


class TestResult:
    REQUEST = follow({"request_id": ID, "status": "COMPLETED"})

    def read(self, content: Any, status: int = 200) -> TaskStatus | InProgress | GatewayRequest:
        return GATEWAY.read_poll(TASK, self.REQUEST, respond(content, status))

    def test_202_is_unfinished(self) -> None:
        assert self.read({"request_id": ID, "status": "IN_PROGRESS"}, 202) == InProgress(None)
        assert self.read(b"", 202) == InProgress(None)

    @pytest.mark.parametrize("fields", [{}, {"status": "COMPLETED"}])
    def test_outputs_are_the_images_in_their_order(self, fields: dict[str, Any]) -> None:
        outputs = [*OUTPUTS, {"type": "text", "text": "no URL"}, {"url": "https://a.example/2"}, None]
        content = {"request_id": ID, "outputs": outputs, "metadata": {"seed": 7}, "usage": {"cost": "0.04"}, **fields}
        status = self.read(content)
        assert isinstance(status, TaskStatus)
        assert [(image.url, image.type) for image in status.images] == [
            (IMAGE_URL, "image"),
            ("https://a.example/2", "image"),
        ]
        assert status.metadata == {"seed": 7}
        assert status.usage is not None
        assert str(status.usage.cost) == "0.04"

    @pytest.mark.parametrize(
        "content",
        [
            {"status": "failed", "error": "no"},
            {"status": "COMPLETED", "error": "no", "error_type": "INFERENCE_FAILURE"},
        ],
    )
    def test_the_result_may_say_that_the_task_failed(self, content: dict[str, Any]) -> None:
        status = self.read({"request_id": ID, **content})
        assert isinstance(status, TaskStatus)
        assert status.state is TaskState.FAILED
        assert status.error is not None
        assert status.error.message == "no"

    def test_many_outputs_are_bounded(self) -> None:
        status = self.read({"request_id": ID, "status": "COMPLETED", "outputs": OUTPUTS * 100})
        assert isinstance(status, TaskStatus)
        assert (len(status.images), status.omitted_images) == (64, 36)

    def test_no_output_is_no_image(self) -> None:
        status = self.read({"request_id": ID, "status": "COMPLETED", "outputs": None})
        assert isinstance(status, TaskStatus)
        assert (status.state, status.images) == (TaskState.COMPLETED, ())


class TestCancel:
    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_taken(self, status: int) -> None:
        assert GATEWAY.read_cancelled(respond(b"", status)) is CancelReply.TAKEN

    @pytest.mark.parametrize("status", [400, 404, 409, 422])
    def test_refused(self, status: int) -> None:
        assert GATEWAY.read_cancelled(respond({"status": "ALREADY_COMPLETED"}, status)) is CancelReply.REFUSED

    @pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
    def test_anything_else_says_nothing_about_the_task(self, status: int) -> None:
        with pytest.raises(GatewayError):
            GATEWAY.read_cancelled(respond(b"", status))
