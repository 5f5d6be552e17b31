"""The reference of a task: all that is needed to find it again, as a value and as text. Pure.

The text has no blanks, so that it is one word on a command line and in a database:

=================================  ====================================================================================
text                               it means
=================================  ====================================================================================
``ID``                             a task of the gateway at hand, where an ID is enough
``vtrix:ID``                       a task of this gateway
``vtrix-queue:ID@MODEL``           a task whose addresses have the model
``bfl:ID@URL``                     a task at an address of its own
``vtrix-queue:ID@MODEL@URL|URL``   a task with several addresses of its own
=================================  ====================================================================================

The ID is quoted as in a URL. An address is as the gateway wrote it: it may have a query, which ``repr`` leaves out, and
no user, which a `Reference` refuses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from attrs import Attribute, field, frozen

from kontext_async.base_errors import InvalidRequest
from kontext_async.decisions.urls import UnusableURL, to_request_url
from kontext_async.protocol.task_ids import is_task_id
from kontext_async.redaction import strip_query

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["MAX_ADDRESS_LENGTH", "Reference", "is_model", "plain_reference", "to_address"]

MAX_ADDRESS_LENGTH = 2083
"""The longest address. Black Forest Labs' API has the same limit for the URLs that it takes."""

MAX_ADDRESSES = 3
KNOWN_MODELS = 64
"""The models that are not checked again for each request."""

MODEL = re.compile(r"[A-Za-z0-9._-]{1,200}")
PREFIX = re.compile(r"([a-z][a-z0-9-]{0,31}):")
IS_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


@lru_cache(KNOWN_MODELS)
def is_model(text: str) -> bool:
    """Return True if a text can be a model in a URL, without changing the path."""
    return MODEL.fullmatch(text) is not None and bool(text.strip("."))


def plain_reference(gateway: str, task_id: str) -> str:
    """Return the text of a reference that has no more than the ID and the gateway, and that nobody needs as a value."""
    return f"{gateway}:{task_id if task_id.isascii() and task_id.isalnum() else quote(task_id, safe='')}"


def to_address(text: str) -> str | None:
    """Return an absolute address as a reference keeps it; None if it is not usable.

    A vertical bar, which no URL has by the standard, is quoted: it separates addresses.
    """
    try:
        url = to_request_url(text)
    except UnusableURL:
        return None
    address = str(url).replace("|", "%7C")
    return (
        None if url.raw_user is not None or "@" in url.raw_authority or len(address) > MAX_ADDRESS_LENGTH else address
    )


def _check_id(_: Reference, __: Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not is_task_id(value) or value != value.strip():
        raise InvalidRequest("reference", value, "its ID must be a task ID as the gateway returned it")


def _check_gateway(_: Reference, __: Attribute[str], value: object) -> None:
    if not isinstance(value, str) or PREFIX.fullmatch(f"{value}:") is None:
        raise InvalidRequest("reference", value, "its gateway must be the name of a gateway, such as vtrix")


def _check_model(_: Reference, __: Attribute[str | None], value: object) -> None:
    if value is not None and (not isinstance(value, str) or not is_model(value)):
        raise InvalidRequest("reference", value, "its model must be letters, digits, '.', '_' and '-'")


def _check_addresses(_: Reference, __: Attribute[tuple[str, ...]], value: object) -> None:
    if not isinstance(value, tuple) or len(value) > MAX_ADDRESSES:
        raise InvalidRequest("reference", value, f"its addresses must be a tuple of at most {MAX_ADDRESSES}")
    for address in value:
        if not isinstance(address, str) or to_address(address) != address:
            raise InvalidRequest("reference", address, "its address must be an http(s) URL without a user")


@frozen(order=True)
class Reference:
    """All that is needed to find a task again: plain data, which can be pickled. ``str`` gives its text form.

    Attributes:
        task_id: The task ID.
        gateway: The name of the gateway.
        model: The model, if the gateway's addresses need it.
        addresses: The task's own addresses, if it has any.

    Raises:
        InvalidRequest: A part is not usable.
    """

    task_id: str = field(validator=_check_id)
    gateway: str = field(validator=_check_gateway)
    model: str | None = field(default=None, kw_only=True, validator=_check_model)
    addresses: tuple[str, ...] = field(
        default=(), kw_only=True, validator=_check_addresses, repr=lambda each: repr(tuple(map(strip_query, each)))
    )

    @property
    def is_plain(self) -> bool:
        """True if it has no more than the ID and the gateway."""
        return self.model is None and not self.addresses

    @classmethod
    def parse(cls, text: str, gateways: Collection[str]) -> Reference | None:
        """Return the reference that a text is; None if it is a plain task ID.

        Args:
            text: The text. It is a reference if it begins with the name of a gateway and a colon.
            gateways: The names of all gateways.

        Raises:
            InvalidRequest: It begins as a reference, and is none.
        """
        text = text.strip()
        prefix = PREFIX.match(text)
        if prefix is None or prefix[1] not in gateways:
            return None
        task_id, _, rest = text[prefix.end() :].partition("@")
        model: str | None = None
        if rest and not IS_ADDRESS.match(rest):
            model, _, rest = rest.partition("@")
        try:
            return cls(unquote(task_id), prefix[1], model=model, addresses=tuple(rest.split("|")) if rest else ())
        except InvalidRequest:
            rule = "it must be a reference as an error, an event or GenerationTask.reference shows it"
            raise InvalidRequest("reference", strip_reference(text), rule) from None

    def __str__(self) -> str:
        parts = [quote(self.task_id, safe="")]
        if self.model is not None:
            parts.append(self.model)
        if self.addresses:
            parts.append("|".join(self.addresses))
        return f"{self.gateway}:{'@'.join(parts)}"


def strip_reference(text: str) -> str:
    """Return a text that should be a reference, for an error: without the query of an address."""
    head, at, address = text.partition("@http")
    return f"{head}{at}{strip_query(f'http{address}').removeprefix('http')}" if at else text
