"""The differences between the dialects that every request meets: where the key is, and how a refusal looks."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from kontext_async.emulator.bfl_json import build_refusal
from kontext_async.emulator.fault_kinds import ErrorShape, FaultKind
from kontext_async.emulator.http.responder import PreparedResponse, prepare_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.http.state import GatewayState
    from kontext_async.emulator.world import Refusal


@frozen(kw_only=True)
class Dialect:
    """One dialect, as every request meets it.

    Attributes:
        read_key: Returns the key of a request; empty without one.
        prepare_refusal: Prepares the response of a refusal.
        adapt_fault: Returns a fault as this dialect shows it.
        has_uuid: Whether the IDs of tasks are UUIDs.
    """

    read_key: Callable[[web.Request], str]
    prepare_refusal: Callable[[GatewayState, Refusal], PreparedResponse] = prepare_refusal
    adapt_fault: Callable[[Fault | None], Fault | None] = lambda fault: fault
    has_uuid: bool = False


def read_authorization(request: web.Request, schemes: tuple[str, ...]) -> str:
    """Return the key of an Authorization header with one of the schemes."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() in schemes else ""


def read_bfl_key(request: web.Request) -> str:
    """Return the key of the header that Black Forest Labs' API takes."""
    return request.headers.get("x-key", "").strip()


def prepare_bfl_refusal(_: GatewayState, refusal: Refusal) -> PreparedResponse:
    """Prepare the response of a refusal in Black Forest Labs' dialect, which sends no Retry-After."""
    status, value = build_refusal(refusal)
    return PreparedResponse(status=status, value=value)


def adapt_bfl_fault(fault: Fault | None) -> Fault | None:
    """Return a fault whose error has the shape of Black Forest Labs' dialect, unless the fault names a shape."""
    if fault is None or fault.kind is FaultKind.HTML_PAGE:
        return fault
    if fault.kind is FaultKind.BALANCE_TOO_LOW:
        return evolve(fault, shape=ErrorShape.DETAIL, status=HTTPStatus.PAYMENT_REQUIRED)
    return evolve(fault, shape=fault.shape or ErrorShape.DETAIL)


PLAIN = Dialect(read_key=partial(read_authorization, schemes=("bearer",)))
QUEUE = Dialect(read_key=partial(read_authorization, schemes=("bearer", "key")))
BFL = Dialect(read_key=read_bfl_key, prepare_refusal=prepare_bfl_refusal, adapt_fault=adapt_bfl_fault, has_uuid=True)
FIREWORKS = evolve(BFL, read_key=PLAIN.read_key)
