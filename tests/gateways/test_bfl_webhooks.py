"""The deliveries of webhooks: who sent them, and which task they are about."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from gateways_support import ID
from hypothesis import given, strategies as st

from kontext_async.gateways.bfl_webhooks import is_authentic, read_task_id

SECRET = "a secret"
BODY = json.dumps({"id": ID, "status": "Ready", "result": {"sample": "https://x"}}).encode()


def sign(body: bytes = BODY, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Webhook-Secret": SECRET},
        {"x-webhook-secret": SECRET},
        {"X-BFL-Signature": sign()},
        {"x-bfl-signature": sign()},
        {"X-Webhook-Secret": "wrong", "X-BFL-Signature": sign()},
        {"X-Webhook-Secret": SECRET, "X-BFL-Signature": "wrong"},
    ],
)
def test_either_form_of_the_secret_is_accepted(headers: dict[str, str]) -> None:
    assert is_authentic(headers, BODY, SECRET)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": SECRET},
        {"X-Webhook-Secret": ""},
        {"X-Webhook-Secret": "a secre"},
        {"X-Webhook-Secret": "A SECRET"},
        {"X-Webhook-Secret": sign()},
        {"X-BFL-Signature": SECRET},
        {"X-BFL-Signature": sign().removeprefix("sha256=")},
        {"X-BFL-Signature": sign(b"{}")},
        {"X-BFL-Signature": sign(secret="other")},
        {"X-BFL-Signature": "sha1=" + sign()[7:]},
        {"X-Webhook-Secret": "\udcff\xe4"},
    ],
)
def test_anything_else_is_refused(headers: dict[str, str]) -> None:
    assert not is_authentic(headers, BODY, SECRET)


def test_an_empty_secret_is_never_authentic() -> None:
    assert not is_authentic({"X-Webhook-Secret": "", "X-BFL-Signature": sign(secret="x")}, BODY, "")


@pytest.mark.parametrize(
    "content",
    [
        {"id": ID, "status": "Ready", "result": {"sample": "https://x"}, "timestamp": "2026-01-01T00:00:00Z"},
        {"id": ID, "status": "Error", "error": "no", "message": "no", "timestamp": "2026-01-01T00:00:00Z"},
        {"id": ID, "status": "Ready", "result": {}, "progress": None, "details": None, "preview": None},
    ],
)
def test_every_form_of_a_body_names_its_task(content: dict[str, Any]) -> None:
    assert read_task_id(json.dumps(content).encode()) == ID


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"id": 7}', b'{"id": ".."}', b'{"id": ""}', b"<html>"])
def test_a_body_without_a_task_names_none(body: bytes) -> None:
    assert read_task_id(body) is None


@given(st.binary(max_size=100), st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3))
def test_nothing_that_comes_raises(body: bytes, headers: dict[str, str]) -> None:
    assert not is_authentic(headers, body, SECRET) or SECRET in headers.values()
    assert read_task_id(body) is None or isinstance(read_task_id(body), str)
