"""What is sent to Black Forest Labs' API, and how creates and refusals are read: PROTOCOL-BFL.md, row by row."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from gateways_support import DIALECTS, ID, KEY, MODEL, POLLING_URL, body_of, new_gateway, refer, respond

from kontext_async.errors import (
    AuthenticationFailed,
    ConfigurationError,
    GatewayError,
    InvalidRequest,
    InvalidResponse,
    PermissionDenied,
    RateLimited,
    RequestRejected,
)
from kontext_async.gateways import Acceptance, GatewayRequest, Purpose, Reference, Webhook, find_reference
from kontext_async.models import KontextRequest, TaskState, TaskStatus

GATEWAY = new_gateway("bfl")
BASE = "https://api.bfl.ai"
CREATED = DIALECTS["bfl"].created
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def accept(content: Any, status: int = 200, **options: Any) -> Acceptance:
    return new_gateway("bfl", **options).read_created(respond(content, status), model=MODEL)


class TestAddresses:
    @pytest.mark.parametrize("base", [BASE, "https://api.eu.bfl.ai", "https://api.us.bfl.ai"])
    @pytest.mark.parametrize("model", ["flux_kontext_pro", "flux_kontext_max", "flux-kontext-max"])
    def test_the_model_is_the_path(self, base: str, model: str) -> None:
        request = new_gateway("bfl", base).create(KontextRequest("a fox", model=model), ())
        assert str(request.url) == f"{base}/v1/{model.replace('_', '-')}"
        assert request.headers["x-key"] == KEY
        assert "Authorization" not in request.headers
        assert request.headers["Content-Type"] == "application/json"

    def test_a_task_is_polled_at_its_own_address(self) -> None:
        status = GATEWAY.status(refer("bfl"))
        assert (status.purpose, status.method, str(status.url)) == (Purpose.STATUS, "GET", POLLING_URL)
        assert status.headers["x-key"] == KEY

    def test_a_poll_is_never_sent_to_a_host_that_is_not_trusted(self) -> None:
        task = Reference(ID, "bfl", addresses=("https://evil.example/v1/get_result?id=1",))
        for use in (GATEWAY.status, lambda each: find_reference(GATEWAY, each)):
            with pytest.raises(InvalidRequest, match=r"evil\.example"):
                use(task)
        trusting = new_gateway("bfl", trusted_hosts=("evil.example",))
        assert str(trusting.status(find_reference(trusting, task)).url) == "https://evil.example/v1/get_result?id=1"

    def test_an_id_alone_is_enough_only_in_a_single_cluster(self) -> None:
        for given in (ID, f"bfl:{ID}"):
            with pytest.raises(InvalidRequest, match=r"bfl:ID@URL.*single_cluster"):
                find_reference(GATEWAY, given)
        single = new_gateway("bfl", "https://images.example", single_cluster=True)
        task = find_reference(single, ID)
        assert str(single.status(task).url) == f"https://images.example/v1/get_result?id={ID}"

    def test_the_balance_is_in_credits(self) -> None:
        assert str(GATEWAY.balance().url) == f"{BASE}/v1/credits"
        assert GATEWAY.balance().headers["x-key"] == KEY
        assert GATEWAY.read_balance(respond({"credits": 1234.5})) == Decimal("12.345")
        contents: tuple[Any, ...]
        contents = ({}, {"credits": None}, {"credits": -1}, {"credits": True}, {"credits": []})
        for content in contents:
            with pytest.raises(InvalidResponse):
                GATEWAY.read_balance(respond(content))

    def test_the_probe_is_free(self) -> None:
        assert GATEWAY.probe() == GATEWAY.balance()

    @pytest.mark.parametrize("base", ["http://api.bfl.ai", "http://10.0.0.1:8080", "http://localhost.example"])
    def test_a_base_url_without_tls_must_be_on_loopback(self, base: str) -> None:
        with pytest.raises(ConfigurationError, match="https, or http on loopback"):
            new_gateway("bfl", base)
        for allowed in ("http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"):
            assert new_gateway("bfl", allowed).trusted.permits_http


class TestBody:
    def test_a_format_is_always_sent(self) -> None:
        assert body_of(GATEWAY.create(KontextRequest("a fox"), ())) == {"prompt": "a fox", "output_format": "jpeg"}
        webp = KontextRequest("a fox", output_format="webp")
        assert body_of(GATEWAY.create(webp, ()))["output_format"] == "webp"

    @pytest.mark.parametrize("tolerance", range(7))
    def test_every_tolerance_is_sent(self, tolerance: int) -> None:
        request = KontextRequest("a fox", safety_tolerance=tolerance)
        assert body_of(GATEWAY.create(request, ()))["safety_tolerance"] == tolerance


class TestWebhooks:
    SINGLE = new_gateway("bfl", "https://images.example", single_cluster=True)
    REQUEST = KontextRequest("a fox")

    def test_a_webhook_is_part_of_the_body(self) -> None:
        hook = Webhook(url="https://me.example/hook?a=1", secret="s3cret")
        body = body_of(self.SINGLE.create(self.REQUEST, (), hook))
        assert body["webhook_url"] == "https://me.example/hook?a=1"
        assert body["webhook_secret"] == "s3cret"
        assert "s3cret" not in repr(hook)
        assert "a=1" not in repr(hook)
        assert "webhook_secret" not in body_of(
            self.SINGLE.create(self.REQUEST, (), Webhook(url="https://me.example/hook"))
        )

    def test_without_a_single_cluster_nothing_is_sent(self) -> None:
        with pytest.raises(ConfigurationError, match="single_cluster=True"):
            GATEWAY.check_webhook(Webhook(url="https://me.example/hook"))

    @pytest.mark.parametrize(
        "url",
        ["", "x", "http://me.example/hook", "ftp://me.example", "https://user@me.example/", "https://a/" + "x" * 2083],
    )
    def test_an_address_that_the_gateway_would_not_take_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="webhook"):
            self.SINGLE.check_webhook(Webhook(url=url))

    def test_on_loopback_the_address_may_be_http(self) -> None:
        local = new_gateway("bfl", "http://127.0.0.1:8080", single_cluster=True)
        hook = Webhook(url="http://127.0.0.1:9/hook")
        assert body_of(local.create(self.REQUEST, (), hook))["webhook_url"] == hook.url

    def test_its_response_has_no_address_and_the_id_is_enough(self) -> None:
        content = {"id": ID, "status": "Pending", "webhook_url": "https://me.example/hook", "cost": 4}
        created = self.SINGLE.read_created(respond(content), model=MODEL)
        assert created.reference.addresses == (f"https://images.example/v1/get_result?id={ID}",)
        assert created.status.raw_status == "Pending"


class TestCreated:
    def test_the_price_is_in_credits(self) -> None:
        created = accept(CREATED)
        assert created.status.usage is not None
        assert (created.status.usage.cost, created.status.usage.currency) == (Decimal("0.04"), "USD")
        assert created.status.extra == {"input_mp": 0.0, "output_mp": 1.05}

    @pytest.mark.parametrize(
        "cost", [None, -4, True, "x", [], {}, 1e9, 1_000_001, "NaN", "Infinity", 10**40, "4" * 1000]
    )
    def test_a_cost_that_makes_no_sense_is_none(self, cost: Any) -> None:
        assert accept({**CREATED, "cost": cost}).status.usage is None

    @pytest.mark.parametrize(("cost", "usd"), [(0, "0"), (4, "0.04"), ("8", "0.08"), (74.0, "0.74"), (0.5, "0.005")])
    def test_a_cost_is_exact(self, cost: Any, usd: str) -> None:
        usage = accept({**CREATED, "cost": cost}).status.usage
        assert usage is not None
        assert usage.cost == Decimal(usd)

    def test_the_polling_url_is_kept_as_it_came(self) -> None:
        signed = "https://api.us6.bfl.ai/v1/get_result?id=1&sig=a%2Fb%2Bc%3D&x=%7E"
        created = accept({**CREATED, "polling_url": signed})
        assert created.reference.addresses == (signed,)
        assert str(GATEWAY.status(created.reference).url) == signed

    def test_a_relative_polling_url_belongs_to_the_base_url(self) -> None:
        created = accept({**CREATED, "polling_url": f"/v1/get_result?id={ID}"})
        assert created.reference.addresses == (f"{BASE}/v1/get_result?id={ID}",)
        assert created.problem is None

    @pytest.mark.parametrize("address", [None, "", " ", 7, []])
    def test_a_missing_polling_url_follows_from_the_id_on_the_host_that_took_the_task(self, address: Any) -> None:
        created = accept({**CREATED, "polling_url": address})
        assert created.reference.addresses == (f"{BASE}/v1/get_result?id={ID}",)
        assert created.problem is None

    @pytest.mark.parametrize(
        "address",
        [
            "https://evil.example/v1/get_result?id=1",
            "http://api.us1.bfl.ai/v1/get_result?id=1",
            "https://api.us1.bfl.ai:8443/v1/get_result?id=1",
            "https://user:password@api.us1.bfl.ai/v1",
            "https://api.bfl.ai.evil.example/",
            "javascript:alert(1)",
            "https://",
            "\ud800",
            "https://api.us1.bfl.ai/" + "x" * 3000,
        ],
    )
    def test_a_task_whose_address_is_not_trusted_is_accepted_with_a_problem(self, address: str) -> None:
        created = accept({**CREATED, "polling_url": address})
        assert created.status.task_id == created.reference.task_id == ID
        assert created.problem is not None
        assert created.problem.task_id == ID
        assert created.problem.may_be_charged
        assert not created.problem.retryable
        assert "trusted_hosts" in str(created.problem)
        assert "password" not in str(created.problem) + str(created.reference)
        with pytest.raises(InvalidRequest):
            find_reference(GATEWAY, created.reference)

    def test_the_reference_keeps_an_address_that_the_user_may_trust_later(self) -> None:
        address = "https://poll.example/v1/get_result?id=1"
        created = accept({**CREATED, "polling_url": address})
        trusting = new_gateway("bfl", trusted_hosts=("poll.example",))
        assert str(trusting.status(find_reference(trusting, str(created.reference))).url) == address

    @pytest.mark.parametrize(
        ("cut", "address"),
        [
            (b'{"id": "%s", "polling_url": "https://api.us1.b', None),
            (b'{"id": "%s"', None),
            (b'{"id": "%s", "polling_url"', None),
            (b'{"polling_url": "https://api.us1.bfl.ai/p", "id": "%s", "cost": 4', "https://api.us1.bfl.ai/p"),
            (b'{"id": "%s", "polling_url": "https://api.us1.bfl.ai/p", "cost"', "https://api.us1.bfl.ai/p"),
        ],
    )
    def test_a_cut_response_with_the_id_is_accepted(self, cut: bytes, address: str | None) -> None:
        body = cut % ID.encode()
        created = accept(body)
        assert created.reference.addresses == (address or f"{BASE}/v1/get_result?id={ID}",)
        assert created.status.usage is None
        create = GATEWAY.create(KontextRequest("a fox"), ())
        assert GATEWAY.is_readable(create, 200, body)
        assert not GATEWAY.is_readable(GATEWAY.status(refer("bfl")), 200, body)

    @pytest.mark.parametrize("cut", [b"", b"{", b'{"id', b'{"id": "b9b1', b'{"cost": 4, "id": ', b'[{"id": "b9b1"}'])
    def test_a_cut_response_without_the_id_is_unreadable(self, cut: bytes) -> None:
        with pytest.raises(InvalidResponse):
            accept(cut)
        assert not GATEWAY.is_readable(GATEWAY.create(KontextRequest("a fox"), ()), 200, cut)

    @pytest.mark.parametrize("errors", ["no credits", ["no", "credits"], {"prompt": ["is too long"]}, [{"msg": "no"}]])
    def test_errors_inside_a_success_are_a_refusal(self, errors: Any) -> None:
        with pytest.raises(RequestRejected) as caught:
            accept({"errors": errors})
        assert caught.value.from_gateway
        assert not caught.value.may_be_charged

    def test_errors_about_the_key_inside_a_success(self) -> None:
        with pytest.raises(AuthenticationFailed):
            accept({"errors": "Invalid API key format"})

    @pytest.mark.parametrize("errors", [None, [], "", {}])
    def test_no_errors_inside_a_success_are_no_refusal(self, errors: Any) -> None:
        assert accept({**CREATED, "errors": errors}).reference.task_id == ID
        with pytest.raises(InvalidResponse):
            accept({"errors": errors})

    def test_a_task_is_accepted_although_there_are_errors(self) -> None:
        assert accept({**CREATED, "errors": ["a warning"]}).reference.task_id == ID

    def test_a_task_that_is_moderated_at_once_costs_nothing(self) -> None:
        status = accept({**CREATED, "status": "Request Moderated"}).status
        assert status.state is TaskState.FAILED
        assert status.usage is not None
        assert status.usage.cost == 0


class TestRefusals:
    def test_a_list_of_details_is_shown_with_its_places(self) -> None:
        detail = [
            {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing", "input": {"seed": 1}},
            {"loc": ["body", "seed"], "msg": "must be an integer", "type": "int_type", "ctx": {"x": 1}},
        ]
        error = GATEWAY.read_refusal(respond({"detail": detail}, 422))
        assert type(error) is RequestRejected
        assert "body.prompt: Field required; body.seed: must be an integer" in str(error)

    @pytest.mark.parametrize(
        ("status", "detail"),
        [
            (401, "Not authenticated"),
            (403, "Not authenticated"),
            (422, "Invalid API key format"),
            (422, [{"loc": ["header", "x-key"], "msg": "Field required", "type": "missing"}]),
        ],
    )
    def test_a_refusal_about_the_key(self, status: int, detail: Any) -> None:
        error = GATEWAY.read_refusal(respond({"detail": detail}, status))
        assert type(error) is AuthenticationFailed
        assert (error.status, error.from_gateway) == (status, True)

    @pytest.mark.parametrize(
        ("status", "content", "kind"),
        [
            (400, {"detail": "malformed"}, RequestRejected),
            (402, {"detail": "credits are used up"}, PermissionDenied),
            (403, {"detail": "no permission"}, PermissionDenied),
            (403, b"<html>an API key</html>", PermissionDenied),
            (422, {"detail": [{"loc": ["body", "prompt"], "msg": "too long", "input": "my API key"}]}, RequestRejected),
            (422, {"detail": [None, 7, {"loc": None}, {"loc": 7}, {"loc": []}]}, RequestRejected),
            (422, {"detail": None}, RequestRejected),
            (429, {"error": "rate_limit_exceeded", "message": "slow down"}, RateLimited),
        ],
    )
    def test_other_refusals(self, status: int, content: Any, kind: type[GatewayError]) -> None:
        error = GATEWAY.read_refusal(respond(content, status))
        assert type(error) is kind

    def test_used_up_credits_concern_the_balance(self) -> None:
        error = GATEWAY.read_refusal(respond({"detail": "Insufficient credits"}, 402))
        assert isinstance(error, PermissionDenied)
        assert error.concerns_balance

    @pytest.mark.parametrize(
        ("status", "header", "content", "expected"),
        [
            (429, "7", {"retry_after": 30}, 7),
            (429, None, {"retry_after": 30}, 30),
            (429, None, {"retry_after": -1}, 0),
            (429, None, {"retry_after": "soon"}, None),
            (429, None, b"", None),
            (503, None, {"retry_after": 30}, None),
            (503, "3", b"", 3),
        ],
    )
    def test_the_wait_of_a_429_may_stand_in_its_body(
        self, status: int, header: str | None, content: Any, expected: float | None
    ) -> None:
        assert GATEWAY.retry_after(respond(content, status, retry_after=header), NOW) == expected


class TestProbe:
    @pytest.mark.parametrize("name", ["bfl", "fireworks", "vtrix", "vtrix-queue"])
    @pytest.mark.parametrize(
        ("status", "content", "passes"),
        [
            (200, {"credits": 1}, True),
            (200, b"<html>", False),
            (401, {"detail": "no"}, False),
            (402, {"detail": "no credits"}, True),
            (429, {"detail": "slow down"}, True),
            (500, {"detail": "no"}, False),
            (503, b"", False),
        ],
    )
    def test_it_passes_if_the_gateway_itself_responds(
        self,
        name: str,
        status: int,
        content: Any,
        passes: bool,  # noqa: FBT001 # a parameter
    ) -> None:
        assert (new_gateway(name).read_probe(respond(content, status)) is None) is passes

    def test_a_task_that_does_not_exist_is_a_response_too(self) -> None:
        missing = respond({"id": "0", "status": "Task not found"}, 404)
        assert new_gateway("fireworks").read_probe(missing) is None
        assert new_gateway("fireworks").read_probe(respond(b"<html>", 404)) is not None


class TestExpiry:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("se=2025-07-14T07%3A36%3A43Z&sp=r&sig=a%3D", datetime(2025, 7, 14, 7, 36, 43, tzinfo=UTC)),
            ("sig=a&se=2025-07-14T09%3A36%3A43%2B02%3A00", datetime(2025, 7, 14, 7, 36, 43, tzinfo=UTC)),
            ("se=2025-07-14T07%3A36%3A43", None),
            ("se=tomorrow", None),
            ("se=", None),
            ("sig=a", None),
            ("", None),
        ],
    )
    def test_it_stands_in_the_url(self, query: str, expected: datetime | None) -> None:
        assert GATEWAY.read_expiry(f"https://delivery.eu2.bfl.ai/durable/a.jpeg?{query}") == expected

    def test_another_gateway_states_none(self) -> None:
        assert new_gateway("vtrix").read_expiry("https://a.example/?se=2025-07-14T07%3A36%3A43Z") is None
        assert GATEWAY.read_expiry("https://[") is None


class TestFireworks:
    GATEWAY = new_gateway("fireworks")
    ROOT = "https://api.fireworks.ai/inference/v1/workflows/accounts/fireworks/models/flux-kontext-pro"

    def test_the_addresses_are_its_own(self) -> None:
        create = self.GATEWAY.create(KontextRequest("a fox"), ())
        assert str(create.url) == self.ROOT
        assert create.headers["Authorization"] == f"Bearer {KEY}"
        status = self.GATEWAY.status(refer("fireworks"))
        assert (status.method, str(status.url)) == ("POST", f"{self.ROOT}/get_result")
        assert body_of(status) == {"id": ID}
        assert status.headers["Content-Type"] == "application/json"
        assert str(self.GATEWAY.probe().url) == f"{self.ROOT}/get_result"

    def test_no_address_of_a_response_is_used(self) -> None:
        content = {"request_id": ID, "polling_url": "https://evil.example/"}
        created = self.GATEWAY.read_created(respond(content), model=MODEL)
        assert (created.reference, created.problem) == (refer("fireworks"), None)

    def test_a_redirect_of_a_poll_is_not_followed(self) -> None:
        task = refer("fireworks")
        response = respond(b"", 307, location=f"{self.ROOT}/elsewhere")
        with pytest.raises(RequestRejected):
            self.GATEWAY.read_poll(task, self.GATEWAY.status(task), response)

    def test_it_has_no_webhooks(self) -> None:
        with pytest.raises(ConfigurationError, match="no webhooks"):
            self.GATEWAY.check_webhook(Webhook(url="https://me.example/hook"))


class TestRedirects:
    TASK = refer("bfl")

    def poll(self, location: str | None, status: int = 307) -> TaskStatus | GatewayRequest:
        response = respond(b"", status, location=location)
        return GATEWAY.read_status(self.TASK, GATEWAY.status(self.TASK), response)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize(
        ("location", "url"),
        [
            ("https://api.eu2.bfl.ai/v1/get_result?id=1&x=%7E", "https://api.eu2.bfl.ai/v1/get_result?id=1&x=%7E"),
            ("/v2/get_result?id=1", "https://api.us1.bfl.ai/v2/get_result?id=1"),
        ],
    )
    def test_a_redirect_to_a_trusted_host_is_followed(self, status: int, location: str, url: str) -> None:
        request = self.poll(location, status)
        assert isinstance(request, GatewayRequest)
        assert (request.purpose, request.method, str(request.url)) == (Purpose.STATUS, "GET", url)
        assert request.headers["x-key"] == KEY

    @pytest.mark.parametrize(
        "location",
        ["https://evil.example/?id=1", "http://api.us1.bfl.ai/", "//evil.example/", "ftp://a", "https://u@api.bfl.ai/"],
    )
    def test_a_redirect_elsewhere_is_an_error_with_the_id(self, location: str) -> None:
        with pytest.raises(RequestRejected, match="not followed") as caught:
            self.poll(location)
        assert caught.value.task_id == ID
        assert caught.value.may_be_charged

    def test_a_redirect_without_a_target_is_an_error_with_the_id(self) -> None:
        with pytest.raises(RequestRejected) as caught:
            self.poll(None)
        assert caught.value.task_id == ID
