"""The mock gateway speaks several dialects, and counts requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from benchmark_support import FAST_WORKLOAD

from benchmarks.servers.mock_gateway import MockGateway

DIALECTS = {
    "kontext": ("/model/v1/generation", "/model/v1/generation/task/0000000001", "id", "in_progress", "completed"),
    "replicate": ("/v1/models/a/b/predictions", "/v1/predictions/0000000001", "id", "processing", "succeeded"),
    "runway": ("/v1/text_to_image", "/v1/tasks/0000000001", "id", "RUNNING", "SUCCEEDED"),
    "fal": ("/fal-ai/x/y", "/fal-ai/x/requests/0000000001/status", "request_id", "IN_PROGRESS", "COMPLETED"),
}


def parse_body(response: bytes) -> Any:
    head, _, payload = response.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(payload)}".encode() in head
    return json.loads(payload)


@pytest.mark.parametrize("name", DIALECTS)
def test_mock_gateway_speaks_the_dialects(name: str) -> None:
    create, status, key, pending, completed = DIALECTS[name]
    now = 0.0
    gateway = MockGateway("http://here", lambda: now)
    gateway.reset(FAST_WORKLOAD)
    assert parse_body(gateway.create(create.encode()))[key] == "0000000001"
    assert parse_body(gateway.read(status.encode()))["status"] == pending
    now = 1.0
    assert parse_body(gateway.read(status.encode()))["status"] == completed
    assert gateway.counts()["statuses"] == 2
    assert parse_body(gateway.control(b"/_report", b""))["tasks"][0][2] == 1.0
    assert b" 404 " in gateway.read(b"/model/v1/generation/task/9999999999")
