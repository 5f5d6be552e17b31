"""The plain dialect: its addresses, and the balance. Its tasks are tested in `tests/protocol`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import pytest
from gateways_support import ID, KEY, body_of, new_gateway, respond
from hypothesis import given, strategies as st

from kontext_async.errors import ConfigurationError, GatewayError, InvalidResponse
from kontext_async.gateways import Purpose, Reference
from kontext_async.models import Estimate, KontextRequest
from kontext_async.protocol.task_ids import is_task_id

GATEWAY = new_gateway("vtrix")
BASE = "https://cloud.vtrix.ai"


def test_the_addresses_are_the_documented_ones() -> None:
    create = GATEWAY.create(KontextRequest("a fox"), ())
    price = GATEWAY.estimate(KontextRequest("a fox"), ())
    assert not isinstance(price, Estimate)
    assert [(each.method, str(each.url)) for each in (create, price, GATEWAY.probe(), GATEWAY.balance())] == [
        ("POST", f"{BASE}/model/v1/generation"),
        ("POST", f"{BASE}/model/v1/generation/precharge"),
        ("POST", f"{BASE}/model/v1/generation/precharge"),
        ("GET", f"{BASE}/api/v1/user/balance"),
    ]
    status = GATEWAY.status(Reference(ID, "vtrix"))
    assert (status.method, str(status.url)) == ("GET", f"{BASE}/model/v1/generation/task/{ID}")
    assert status.headers["Authorization"] == f"Bearer {KEY}"
    assert body_of(create) == {"model": "flux_kontext_pro", "input": [{"params": {"prompt": "a fox"}}]}
    assert create.headers["Content-Type"] == "application/json"
    assert price.purpose is Purpose.PRICE


@given(st.text(min_size=1, max_size=50).filter(lambda text: is_task_id(text) and text == text.strip()))
def test_a_task_id_cannot_change_the_path_of_the_status_url(task_id: str) -> None:
    url = GATEWAY.status(Reference(task_id, "vtrix")).url
    head, _, last = url.raw_path.rpartition("/")
    assert (str(url.origin()), head, url.raw_query_string) == (BASE, "/model/v1/generation/task", "")
    assert unquote(last) == task_id
    assert last not in (".", "..")


def test_the_balance_is_in_dollars() -> None:
    body = {"status": {"code": 200}, "data": {"balance": "0.96", "currency": "USD"}}
    assert GATEWAY.read_balance(respond(body)) == Decimal("0.96")
    available = {"data": {"balance": "2", "available_balance": "1.5", "currency": "USD"}}
    assert GATEWAY.read_balance(respond(available)) == Decimal("1.5")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", {}, {"data": None}, {"data": {"balance": None}}, {"data": {"balance": "1", "currency": "credit"}}],
)
def test_a_response_without_a_balance_in_dollars_is_unreadable(content: Any) -> None:
    with pytest.raises(InvalidResponse):
        GATEWAY.read_balance(respond(content))


def test_a_refusal_in_a_success_is_raised() -> None:
    with pytest.raises(GatewayError, match="no permission"):
        GATEWAY.read_balance(respond({"status": {"code": 403, "message": "no permission"}}))


@pytest.mark.parametrize("options", [{"trusted_hosts": ("poll.example",)}, {"single_cluster": True}])
def test_options_for_addresses_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        new_gateway("vtrix", **options)
