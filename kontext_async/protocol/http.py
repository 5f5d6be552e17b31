"""A complete HTTP response, as the readers of the gateways get it."""

from __future__ import annotations

from attrs import define, field

from kontext_async.redaction import strip_query

__all__ = ["Response"]


@define  # a frozen class would take four times as long to create
class Response:
    """A complete HTTP response of the API.

    Attributes:
        status: The HTTP status.
        body: The body.
        retry_after: The ``Retry-After`` header.
        request_id: The ``X-Request-Id`` header.
        location: The ``Location`` header of a redirect.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: str | None = None
    request_id: str | None = None
    location: str | None = field(default=None, repr=lambda location: repr(location and strip_query(location)))

    @property
    def ok(self) -> bool:
        """True for a 2xx status."""
        return 200 <= self.status < 300  # noqa: PLR2004 # that is what 2xx means
