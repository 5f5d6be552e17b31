"""What the engine may rely on, of every gateway."""

from __future__ import annotations

import base64
import pickle
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from gateways_support import DIALECTS, ID, IMAGE_URL, KEY, MODEL, body_of, new_gateway, refer, respond
from hypothesis import given, strategies as st

from kontext_async import images
from kontext_async.cancellation import Cancellation
from kontext_async.errors import (
    AuthenticationFailed,
    ConfigurationError,
    GatewayError,
    InvalidRequest,
    InvalidResponse,
    PermissionDenied,
    RateLimited,
    TaskNotFound,
)
from kontext_async.gateways import (
    GATEWAYS,
    Gateway,
    GatewayRequest,
    Purpose,
    Reference,
    Webhook,
    find_reference,
)
from kontext_async.models import (
    Estimate,
    FailureKind,
    KontextRequest,
    TaskErrorDetail,
    TaskState,
    TaskStatus,
)
from kontext_async.protocol.tasks import InProgress

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 25, tzinfo=UTC)
EVERYTHING = KontextRequest(
    "a red fox",
    seed=42,
    aspect_ratio="16:9",
    output_format="png",
    prompt_upsampling=False,
    safety_tolerance=0,
)


@pytest.fixture(params=list(GATEWAYS))
def gateway(request: pytest.FixtureRequest) -> Gateway:
    return new_gateway(request.param)


def statuses_of(gateway: Gateway) -> GatewayRequest:
    return gateway.status(refer(gateway.name))


class TestRequests:
    def test_the_key_is_in_the_headers_alone(self, gateway: Gateway) -> None:
        requests = [gateway.create(EVERYTHING, ()), statuses_of(gateway), gateway.probe()]
        for request in requests:
            assert any(KEY in value for value in request.headers.values())
            assert KEY not in repr(request)
            assert KEY not in str(request.url)
            assert gateway.trusted.covers(request.url)
        assert KEY not in repr(gateway)
        assert "Authorization" not in repr(requests)
        assert "x-key" not in repr(requests)

    def test_a_request_with_a_body_has_the_usual_headers_and_goes_to_the_base_url(self, gateway: Gateway) -> None:
        requests = [gateway.create(EVERYTHING, ()), gateway.estimate(EVERYTHING, ()), statuses_of(gateway)]
        with_body = [each for each in requests if isinstance(each, GatewayRequest) and each.body.length]
        assert with_body
        for request in with_body:
            assert request.headers == {**gateway.headers, "Content-Type": "application/json"}
            assert request.url.origin() == gateway.base.origin()

    def test_every_given_field_of_the_model_is_sent(self, gateway: Gateway) -> None:
        request = gateway.create(EVERYTHING, ())
        assert (request.purpose, request.method) == (Purpose.CREATE, "POST")
        body = body_of(request)
        params = body["input"][0]["params"] if "input" in body else body
        assert params == {
            "prompt": "a red fox",
            "seed": 42,
            "aspect_ratio": "16:9",
            "output_format": "png",
            "prompt_upsampling": False,
            "safety_tolerance": 0,
        }

    def test_images_are_sent_in_base64_or_as_urls(self, gateway: Gateway, tmp_path: Path) -> None:
        data = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 300
        path = tmp_path / "a.jpg"
        path.write_bytes(data)
        request = KontextRequest("combine", input_images=[path, "https://example.com/b.png?x=1"])
        loaded = [
            images.load(source, f"input_images[{index}]", 1_000_000)
            for index, source in enumerate(request.input_images)
        ]
        try:
            body = body_of(gateway.create(request, loaded))
        finally:
            for image in loaded:
                image.close()
        params = body["input"][0]["params"] if "input" in body else body
        assert base64.b64decode(params["input_image"]) == data
        assert params["input_image_2"] == "https://example.com/b.png?x=1"

    def test_a_format_that_the_gateway_does_not_take_is_refused_before_anything_is_sent(self, gateway: Gateway) -> None:
        request = KontextRequest("a fox", output_format="webp")
        if "webp" in gateway.features.output_formats:
            assert body_of(gateway.create(request, ()))["output_format"] == "webp"
        else:
            for refuse in (gateway.check, partial(gateway.estimate, images=())):
                with pytest.raises(InvalidRequest, match=r"output_format.*'jpeg' or 'png'"):
                    refuse(request)

    @pytest.mark.parametrize("fields", [{"moderation": True}, {"metadata": {"trace": "a-1"}}])
    def test_a_field_beside_the_model_is_sent_or_refused(self, gateway: Gateway, fields: dict[str, Any]) -> None:
        request = KontextRequest("a fox", **fields)
        if gateway.features.top_level_fields:
            assert body_of(gateway.create(request, ())).items() >= fields.items()
        else:
            with pytest.raises(InvalidRequest, match=next(iter(fields))):
                gateway.check(request)

    @pytest.mark.parametrize("model", [".", "..", "..."])
    def test_a_model_cannot_change_the_path(self, gateway: Gateway, model: str) -> None:
        with pytest.raises(InvalidRequest, match="model"):
            gateway.check(KontextRequest("a fox", model=model))

    @given(task_id=st.text(min_size=1, max_size=30).filter(lambda text: text.strip(".\t\n\r ") != ""))
    def test_a_task_id_cannot_leave_the_base_url(self, task_id: str) -> None:
        for name in GATEWAYS:
            gateway = new_gateway(name, single_cluster=True) if name == "bfl" else new_gateway(name)
            try:
                place = Reference(task_id, name, model=MODEL)
            except InvalidRequest:
                continue
            request = gateway.status(place)
            assert request.url.raw_authority == gateway.base.raw_authority
            assert str(request.url).isascii()
            assert request.url.raw_fragment == ""
            assert ".." not in request.url.raw_path.split("/")

    def test_a_base_url_with_a_path_keeps_it(self) -> None:
        for name in GATEWAYS:
            gateway = new_gateway(name, "http://127.0.0.1:8080/proxy")
            assert str(gateway.create(EVERYTHING, ()).url).startswith("http://127.0.0.1:8080/proxy/")

    def test_a_webhook_is_refused_where_the_gateway_has_none(self, gateway: Gateway) -> None:
        with pytest.raises(ConfigurationError):
            gateway.check_webhook(Webhook(url="https://example.com/hook"))

    def test_what_a_gateway_cannot_do_is_a_configuration_error(self, gateway: Gateway) -> None:
        if not gateway.features.cancel:
            with pytest.raises(ConfigurationError, match="cannot cancel"):
                gateway.cancel(refer(gateway.name))
            with pytest.raises(GatewayError):
                gateway.read_cancelled(respond({}, 200))
        if not gateway.features.balance:
            with pytest.raises(ConfigurationError, match="balance"):
                gateway.balance()
            with pytest.raises(InvalidResponse):
                gateway.read_balance(respond({"other": 1}))

    def test_a_price_is_requested_or_known(self, gateway: Gateway) -> None:
        price = gateway.estimate(EVERYTHING, ())
        assert gateway.features.estimate is isinstance(price, GatewayRequest)
        if isinstance(price, Estimate):
            assert price.cost is not None or price.reason is not None
            with pytest.raises(InvalidResponse):
                gateway.read_estimate(respond({"cost": 4}))


class TestCreated:
    @pytest.mark.parametrize("kind", ["created", "in_progress", "completed", "failed"])
    def test_what_the_engine_reads_is_what_the_whole_response_says(self, gateway: Gateway, kind: str) -> None:
        response = respond(getattr(DIALECTS[gateway.name], kind))
        whole = gateway.read_created(response, model=MODEL)
        accepted = gateway.read_accepted(response, model=MODEL)
        if isinstance(accepted, str):
            assert (whole.status.task_id, whole.status.state) == (accepted, TaskState.IN_PROGRESS)
            assert whole.reference.is_plain
            assert whole.problem is None
            assert not gateway.features.price_at_create
        else:
            assert accepted == whole

    def test_the_response_gives_the_task_and_its_reference(self, gateway: Gateway) -> None:
        acceptance = gateway.read_created(respond(DIALECTS[gateway.name].created), model=MODEL)
        assert acceptance.reference == refer(gateway.name)
        assert acceptance.status.task_id == ID
        assert acceptance.status.state is TaskState.IN_PROGRESS
        assert acceptance.problem is None
        assert gateway.resolve(acceptance.reference) == acceptance.reference

    @pytest.mark.parametrize(
        "body",
        [b"", b"<html>", b"[]", b"null", b"{}", b'{"status": "ok"}', b'{"id": 7}', b'{"id": ".."}', b'{"id": ""}'],
    )
    def test_a_success_without_a_task_id_is_unreadable(self, gateway: Gateway, body: bytes) -> None:
        with pytest.raises(InvalidResponse):
            gateway.read_created(respond(body), model=MODEL)

    def test_a_task_in_an_error_response_is_accepted(self, gateway: Gateway) -> None:
        created = {"status": "Pending", **DIALECTS[gateway.name].created}
        acceptance = gateway.accepted_despite_error(respond(created, 500), model=MODEL)
        assert acceptance is not None
        assert acceptance.reference == refer(gateway.name)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"<html>",
            {"error": {"code": "E", "message": "no"}, "request_id": "0123456789abcdef"},
            {"error": "no", "request_id": "0123456789abcdef"},
            {"message": "no", "id": "0123456789abcdef"},
            {"detail": "Internal Server Error"},
        ],
    )
    def test_an_error_with_the_id_of_the_http_request_is_no_task(self, gateway: Gateway, content: Any) -> None:
        assert gateway.accepted_despite_error(respond(content, 500), model=MODEL) is None

    def test_a_failed_task_in_an_error_response_is_a_refusal(self, gateway: Gateway) -> None:
        failed = {**DIALECTS[gateway.name].failed, "status": "failed"}
        assert gateway.accepted_despite_error(respond(failed, 500), model=MODEL) is None

    @given(body=st.binary(max_size=200))
    def test_whatever_comes_is_read_or_is_a_gateway_error(self, body: bytes) -> None:
        for name in GATEWAYS:
            gateway = new_gateway(name)
            with suppress(GatewayError):
                assert gateway.read_created(respond(body), model=MODEL).reference.gateway == name


class TestPolls:
    def test_a_task_in_progress_is_read_as_its_progress(self, gateway: Gateway) -> None:
        body = respond(DIALECTS[gateway.name].in_progress)
        task = refer(gateway.name)
        assert gateway.read_poll(task, statuses_of(gateway), body) == InProgress(0.4)
        status = gateway.read_status(task, statuses_of(gateway), body)
        assert isinstance(status, TaskStatus)
        assert (status.state, status.progress, status.task_id) == (TaskState.IN_PROGRESS, 0.4, ID)
        assert gateway.read_retained(task, body.body) == status

    def test_a_completed_task_has_its_image(self, gateway: Gateway) -> None:
        status = gateway.read_poll(refer(gateway.name), statuses_of(gateway), respond(DIALECTS[gateway.name].completed))
        assert isinstance(status, TaskStatus)
        assert status.state is TaskState.COMPLETED
        assert [image.url for image in status.images] == [IMAGE_URL]
        assert status.images[0].task_id == ID

    def test_a_failed_task_has_its_reason(self, gateway: Gateway) -> None:
        status = gateway.read_poll(refer(gateway.name), statuses_of(gateway), respond(DIALECTS[gateway.name].failed))
        assert isinstance(status, TaskStatus)
        assert status.state is TaskState.FAILED
        assert status.error is not None
        assert "it went wrong" in status.error.message
        assert status.error.kind is FailureKind.ERROR

    def test_an_unknown_status_is_not_finished(self, gateway: Gateway) -> None:
        body = respond({**DIALECTS[gateway.name].in_progress, "status": "Warming Up"})
        status = gateway.read_status(refer(gateway.name), statuses_of(gateway), body)
        assert isinstance(status, TaskStatus)
        assert (status.state, status.raw_status) == (TaskState.UNKNOWN, "Warming Up")

    def test_a_response_about_another_task_is_unreadable(self, gateway: Gateway) -> None:
        other = {key: "x1" if value == ID else value for key, value in DIALECTS[gateway.name].completed.items()}
        with pytest.raises(InvalidResponse, match="x1"):
            gateway.read_poll(refer(gateway.name), statuses_of(gateway), respond(other))

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"status": 3}', b'{"status": null}'])
    def test_a_success_that_says_nothing_is_unreadable(self, gateway: Gateway, body: bytes) -> None:
        with pytest.raises(InvalidResponse):
            gateway.read_poll(refer(gateway.name), statuses_of(gateway), respond(body))

    @pytest.mark.parametrize("content", [b"", b"<html>", {"detail": "x"}, {"status": "error", "message": "x"}])
    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_an_error_of_a_proxy_is_no_verdict(self, gateway: Gateway, status: int, content: Any) -> None:
        with pytest.raises(GatewayError) as caught:
            gateway.read_poll(refer(gateway.name), statuses_of(gateway), respond(content, status))
        assert caught.value.retryable
        assert (caught.value.status, caught.value.task_id) == (status, ID)

    @pytest.mark.parametrize("content", [{"detail": "Task not found"}, b"", b"<html>"])
    def test_a_404_says_that_the_task_is_not_known(self, gateway: Gateway, content: Any) -> None:
        with pytest.raises(GatewayError) as caught:
            gateway.read_poll(refer(gateway.name), statuses_of(gateway), respond(content, 404))
        assert caught.value.status == 404

    @given(body=st.binary(max_size=200), status=st.sampled_from([200, 202, 302, 404, 422, 500, 503]))
    def test_whatever_comes_is_read_or_is_an_error_of_the_tree(self, body: bytes, status: int) -> None:
        for name in GATEWAYS:
            gateway = new_gateway(name)
            with_location = respond(body, status, location="https://evil.example/?id=1")
            with suppress(GatewayError, TaskNotFound):
                read = gateway.read_poll(refer(name), statuses_of(gateway), with_location)
                assert not isinstance(read, GatewayRequest) or gateway.trusted.covers(read.url)


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (401, AuthenticationFailed),
            (402, PermissionDenied),
            (403, PermissionDenied),
            (429, RateLimited),
        ],
    )
    def test_the_http_status_decides(self, gateway: Gateway, status: int, kind: type[GatewayError]) -> None:
        error = gateway.read_refusal(respond({"detail": "no"}, status), ID)
        assert type(error) is kind
        assert (error.status, error.task_id, error.from_gateway) == (status, ID, True)

    def test_retry_after_is_read_from_the_header(self, gateway: Gateway) -> None:
        assert gateway.retry_after(respond(b"", 429, retry_after="7"), NOW) == 7
        assert gateway.retry_after(respond(b"", 429), NOW) is None

    def test_a_redirect_shows_its_target_without_the_query(self, gateway: Gateway) -> None:
        error = gateway.read_refusal(respond(b"", 302, location="https://evil.example/a?token=abc"))
        assert "https://evil.example/a" in str(error)
        assert "abc" not in str(error)


class TestReferences:
    def test_a_reference_survives_text_and_pickling(self, gateway: Gateway) -> None:
        reference = refer(gateway.name)
        assert find_reference(gateway, str(reference)) == reference
        assert find_reference(gateway, reference) == reference
        assert pickle.loads(pickle.dumps(reference)) == reference  # noqa: S301 # pickled on this line
        assert " " not in str(reference)

    def test_a_reference_of_another_gateway_is_refused(self, gateway: Gateway) -> None:
        for other in GATEWAYS:
            if other != gateway.name:
                with pytest.raises(InvalidRequest, match=f"must be of the gateway {gateway.name}"):
                    find_reference(gateway, str(refer(other)))

    def test_a_plain_id_is_enough_where_nothing_else_is_needed(self, gateway: Gateway) -> None:
        if gateway.features.needs_model or gateway.features.has_addresses:
            with pytest.raises(InvalidRequest, match=f"{gateway.name}:ID@"):
                find_reference(gateway, ID)
        else:
            assert find_reference(gateway, f" {ID}\n") == Reference(ID, gateway.name)

    @pytest.mark.parametrize("given_id", ["", " ", "..", "x" * 600, None, 7])
    def test_an_impossible_id_is_refused(self, gateway: Gateway, given_id: Any) -> None:
        with pytest.raises(InvalidRequest):
            find_reference(gateway, given_id)


class TestCancellations:
    @pytest.mark.parametrize(
        ("state", "kind", "expected"),
        [
            (TaskState.FAILED, FailureKind.CANCELLED, Cancellation.IN_TIME),
            (TaskState.FAILED, FailureKind.ERROR, Cancellation.TOO_LATE),
            (TaskState.FAILED, FailureKind.MODERATED, Cancellation.TOO_LATE),
            (TaskState.COMPLETED, None, Cancellation.TOO_LATE),
            (TaskState.IN_PROGRESS, None, Cancellation.UNKNOWN),
            (TaskState.UNKNOWN, None, Cancellation.UNKNOWN),
        ],
    )
    def test_the_status_says_what_became_of_the_task(
        self,
        gateway: Gateway,
        state: TaskState,
        kind: FailureKind | None,
        expected: Cancellation,
    ) -> None:
        error = None if kind is None else TaskErrorDetail(kind=kind)
        status = TaskStatus(task_id=ID, state=state, raw_status="x", error=error)
        assert gateway.judge_cancellation(status) is expected
        assert gateway.judge_cancellation(None) is Cancellation.UNKNOWN


def test_every_dialect_has_its_responses_here() -> None:
    assert set(DIALECTS) == set(GATEWAYS)


def test_each_pool_has_its_own_limit() -> None:
    assert new_gateway("bfl").pool_of("flux_kontext_pro").max_in_flight == 24
    assert new_gateway("bfl").pool_of("flux_kontext_max").max_in_flight == 6
    assert new_gateway("bfl").pool_of("flux-kontext-max") == new_gateway("bfl").pool_of("flux_kontext_max")
    for name in ("vtrix", "vtrix-queue", "fireworks"):
        assert new_gateway(name).pool_of("flux_kontext_max") == new_gateway(name).pool_of("flux_kontext_pro")


def test_a_published_price_is_in_dollars() -> None:
    prices = {
        model: new_gateway("bfl").estimate(KontextRequest("a fox", model=model), ())
        for model in ("flux_kontext_pro", "flux_kontext_max", "flux-kontext-max", "flux-2-pro")
    }
    costs = {model: price.cost for model, price in prices.items() if isinstance(price, Estimate)}
    assert costs == {
        "flux_kontext_pro": Decimal("0.04"),
        "flux_kontext_max": Decimal("0.08"),
        "flux-kontext-max": Decimal("0.08"),
        "flux-2-pro": None,
    }
