"""The dialects of the gateways, as pure functions of one interface: what to send, and what responses mean.

No I/O (but an image's own), no await, no clock. The modules:

``values``
    The values that the interface speaks in.
``base``
    The interface.
``references``
    The reference of a task, as a value and as text.
``trusted_hosts``
    The hosts that may see the key.
``vtrix``
    The vendor's gateway in its plain dialect, the default: PROTOCOL.md.
``vtrix_tasks``
    The JSON of a task there.
``vtrix_estimates``
    A price there.
``vtrix_queue``
    The vendor's gateway in its queue dialect: PROTOCOL.md.
``bfl``
    Black Forest Labs' own API, and Fireworks' variant of it: PROTOCOL-BFL.md.
``bfl_tasks``
    The JSON of a task there.
``bfl_webhooks``
    The deliveries of Black Forest Labs' webhooks.
``registry``
    The gateways by name.
"""

from kontext_async.gateways.base import Gateway
from kontext_async.gateways.references import Reference, plain_reference
from kontext_async.gateways.registry import (
    DEFAULT_GATEWAY,
    GATEWAYS,
    find_gateway,
    find_reference,
    find_task_id,
    make_gateway,
)
from kontext_async.gateways.trusted_hosts import TrustedHosts, UntrustedAddress
from kontext_async.gateways.values import (
    Acceptance,
    CancelReply,
    Features,
    GatewayOptions,
    GatewayRequest,
    ModelPool,
    Purpose,
    Webhook,
)

__all__ = [
    "DEFAULT_GATEWAY",
    "GATEWAYS",
    "Acceptance",
    "CancelReply",
    "Features",
    "Gateway",
    "GatewayOptions",
    "GatewayRequest",
    "ModelPool",
    "Purpose",
    "Reference",
    "TrustedHosts",
    "UntrustedAddress",
    "Webhook",
    "find_gateway",
    "find_reference",
    "find_task_id",
    "make_gateway",
    "plain_reference",
]
