"""Every odd response of the emulator is still true: the gateways read the same state from it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from gateways_support import DIALECTS, ID, IMAGE_URL, new_gateway, refer, respond

from kontext_async.emulator import Fault, FaultKind
from kontext_async.emulator.fault_specs import FAULT_SPECS
from kontext_async.emulator.odd_dialects import BFL_SHAPES, QUEUE_SHAPES, apply_odd_bfl_shape, apply_odd_queue_shape
from kontext_async.gateways import GatewayRequest, Purpose
from kontext_async.models import TaskState, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kontext_async.emulator.task_json import Json

SHAPES: dict[str, tuple[Callable[[Json, Fault], Json], set[FaultKind]]] = {
    "vtrix-queue": (apply_odd_queue_shape, set(QUEUE_SHAPES) - {FaultKind.ODD_ADDRESS}),
    "bfl": (apply_odd_bfl_shape, set(BFL_SHAPES) - {FaultKind.ODD_ADDRESS}),
}
TASKS: dict[str, dict[str, dict[str, Any]]] = {
    name: {
        "in_progress": DIALECTS[name].in_progress,
        "completed": {**DIALECTS[name].completed, **({"cost": 4.0} if name == "bfl" else {"error": None})},
        "failed": DIALECTS[name].failed,
    }
    for name in SHAPES
}
UNFINISHED = {TaskState.IN_PROGRESS, TaskState.UNKNOWN}
EXPECTED = {"in_progress": UNFINISHED, "completed": {TaskState.COMPLETED}, "failed": {TaskState.FAILED}}


def odd_responses() -> Iterator[tuple[str, str, FaultKind, str | None]]:
    for name, (_, kinds) in SHAPES.items():
        for kind in sorted(kinds):
            for variant in FAULT_SPECS[kind].variants or (None,):
                for phase in EXPECTED:
                    yield name, phase, kind, variant


@pytest.mark.parametrize(("name", "phase", "kind", "variant"), list(odd_responses()))
def test_an_odd_response_has_the_same_state(name: str, phase: str, kind: FaultKind, variant: str | None) -> None:
    apply, _ = SHAPES[name]
    odd = apply(TASKS[name][phase], Fault(kind=kind, variant=variant).resolve(Random(0)))
    gateway = new_gateway(name)
    request = gateway.status(refer(name))
    if name == "vtrix-queue" and phase == "completed":
        request = request._replace(purpose=Purpose.RESULT)
    status = gateway.read_status(refer(name), request, respond(odd))
    assert isinstance(status, TaskStatus)
    assert status.state in EXPECTED[phase]
    assert status.task_id == ID
    has_image = phase == "completed" and kind is not FaultKind.ODD_OUTPUT
    assert {image.url for image in status.images} == ({IMAGE_URL} if has_image else set())
    assert (status.error is not None) is (phase == "failed")


def test_several_urls_keep_their_order() -> None:
    odd = apply_odd_queue_shape(TASKS["vtrix-queue"]["completed"], Fault(kind="several-urls"))
    gateway = new_gateway("vtrix-queue")
    status = gateway.read_status(refer("vtrix-queue"), gateway.status(refer("vtrix-queue")), respond(odd))
    assert not isinstance(status, GatewayRequest)
    assert len(status.images) == 2
