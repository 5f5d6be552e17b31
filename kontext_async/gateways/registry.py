"""The gateways by name. A fourth dialect is one module, and one line here."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from kontext_async.base_errors import ConfigurationError
from kontext_async.gateways.bfl import BflGateway, FireworksGateway
from kontext_async.gateways.references import Reference
from kontext_async.gateways.values import DEFAULT_OPTIONS, GatewayOptions
from kontext_async.gateways.vtrix import VtrixGateway
from kontext_async.gateways.vtrix_queue import VtrixQueueGateway
from kontext_async.protocol import check_task_id
from kontext_async.redaction import safe_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.gateways.base import Gateway

__all__ = ["DEFAULT_GATEWAY", "GATEWAYS", "find_gateway", "find_reference", "find_task_id", "make_gateway"]

DEFAULT_GATEWAY = VtrixGateway.name

GATEWAYS: Mapping[str, type[Gateway]] = MappingProxyType(
    {each.name: each for each in (VtrixGateway, VtrixQueueGateway, BflGateway, FireworksGateway)}
)
"""The dialects by name."""


def find_gateway(name: object) -> type[Gateway]:
    """Return the dialect of a name.

    Raises:
        ConfigurationError: There is no such gateway.
    """
    gateway = GATEWAYS.get(name) if isinstance(name, str) else None
    if gateway is None:
        raise ConfigurationError(f"there is no gateway {safe_repr(name)}; the gateways are {', '.join(GATEWAYS)}")
    return gateway


def make_gateway(
    name: str, api_key: str, base_url: str | None = None, options: GatewayOptions = DEFAULT_OPTIONS
) -> Gateway:
    """Return a gateway for a key.

    Args:
        name: The name of the gateway.
        api_key: The API key.
        base_url: The base URL; None means the dialect's own.
        options: The user's options.

    Raises:
        ConfigurationError: There is no such gateway, or the base URL or an option is not usable.
    """
    gateway = find_gateway(name)
    return gateway(base_url or gateway.default_base_url, api_key, options)


def find_reference(gateway: Gateway, given: Reference | str) -> Reference:
    """Return the reference that a user gave as a value, as a text, or as a plain task ID.

    Raises:
        InvalidRequest: It is of another gateway, is not enough, or has an address that is not trusted.
    """
    parsed = _parse(given)
    return gateway.resolve(given if parsed is None else parsed)


def find_task_id(gateway: Gateway, given: Reference | str) -> str:
    """Return the ID of a task that a user named by its ID alone, or as `find_reference` takes it.

    Raises:
        InvalidRequest: It cannot be an ID, or is a reference that `find_reference` refuses.
    """
    parsed = _parse(given)
    return check_task_id(given) if parsed is None else gateway.resolve(parsed).task_id


def _parse(given: Reference | str) -> Reference | None:
    return Reference.parse(given, GATEWAYS) if isinstance(given, str) else given
