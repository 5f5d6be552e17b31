"""The kinds of failure that leave a request without a response, and what each means for another try. No I/O."""

from __future__ import annotations

import enum

__all__ = ["TransportFailure"]


class TransportFailure(enum.Enum):
    """The reason why a request has no response.

    Attributes:
        CERTIFICATE: The server's certificate was refused, or TLS failed in another way that lasts.
        DNS: The host's name has no address.
        REFUSED: No connection: refused, unreachable, or the proxy refused to make one.
        TIMEOUT: Connecting, sending or receiving took too long.
        LOST: The connection ended early.
        PROTOCOL: The response is not HTTP, or breaks a limit.
        INVALID_URL: The URL cannot be requested.
        REDIRECTS: The redirects of a download do not end, or one may not be followed.
        FORBIDDEN_ADDRESS: The URL leads to an address that the session does not connect to.
        CONFIGURATION: The proxy that the environment names cannot be used.
    """

    CERTIFICATE = "certificate"
    DNS = "dns"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    LOST = "lost"
    PROTOCOL = "protocol"
    INVALID_URL = "invalid_url"
    REDIRECTS = "redirects"
    FORBIDDEN_ADDRESS = "forbidden_address"
    CONFIGURATION = "configuration"

    @property
    def lasts(self) -> bool:
        """True if the same request would fail again at once: it is not worth another try."""
        return self in LASTING


LASTING = frozenset(
    {
        TransportFailure.CERTIFICATE,
        TransportFailure.INVALID_URL,
        TransportFailure.REDIRECTS,
        TransportFailure.FORBIDDEN_ADDRESS,
        TransportFailure.CONFIGURATION,
    }
)
