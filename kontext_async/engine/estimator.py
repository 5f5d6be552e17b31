"""Requests prices, and the account's balance. That can be repeated safely: nothing is generated or billed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kontext_async.decisions.resend import backoff
from kontext_async.engine.clock import sleep_until
from kontext_async.engine.request_log import LoggedRequest
from kontext_async.engine.transport import TransportError
from kontext_async.errors import GatewayUnavailable, InvalidRequest, KontextError
from kontext_async.images import OneShotReader
from kontext_async.models import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from kontext_async.engine.context import Context
    from kontext_async.engine.transport import Response, Transport
    from kontext_async.engine.uploads import UploadLimiter
    from kontext_async.gateways import GatewayRequest
    from kontext_async.models import KontextRequest

__all__ = ["Estimator"]

T = TypeVar("T")


class Estimator:
    """Fetches the gateway's prices, and the account's balance."""

    def __init__(self, transport: Transport, uploads: UploadLimiter, context: Context) -> None:
        self._transport = transport
        self._uploads = uploads
        self._retries = context.settings.retries
        self._clock = context.clock
        self._random = context.random

    async def estimate(self, request: KontextRequest) -> Estimate:
        """Return the price of a request, from the gateway or from its published prices.

        Raises:
            InvalidRequest: An input image is unreadable.
            GatewayError: The gateway refused, was unreachable, or its response is unreadable.
        """
        for index, source in enumerate(request.input_images):
            if isinstance(source, OneShotReader):
                rule = "an async reader can be read only once: estimate the request without it"
                raise InvalidRequest(f"input_images[{index}]", source.reader, rule)
        with await self._uploads.open_images(request.input_images) as images:
            price = self._transport.gateway.estimate(request, images.images)
            if isinstance(price, Estimate):
                return price
            return await self._exchange(price, self._transport.gateway.read_estimate)

    async def balance(self) -> Decimal:
        """Return the account's balance in USD.

        Raises:
            ConfigurationError: The gateway does not state it.
            GatewayError: The gateway refused, was unreachable, or its response is unreadable.
        """
        gateway = self._transport.gateway
        return await self._exchange(gateway.balance(), gateway.read_balance)

    async def _exchange(self, request: GatewayRequest, read: Callable[[Response], T]) -> T:
        """Send a request until it has a response, and read that."""
        attempt = 1
        while True:
            try:
                with LoggedRequest(request.purpose.value, self._clock, attempt=attempt) as logged:
                    upload = self._uploads.upload(request.body)
                    response = await self._transport.exchange(request, upload)
                    logged.responded(response.status)
            except TransportError as lost:
                text = f"no response to a {request.purpose.value} request: {lost}"
                error: KontextError = GatewayUnavailable(text)
                error.__cause__ = lost.__cause__
            else:
                if response.ok:
                    return self._read(read, response)
                error = self._transport.read_refusal(response)
            if not error.retryable or attempt >= self._retries.attempts:
                raise error
            pause = backoff(attempt, self._retries, self._random.random())
            await sleep_until(self._clock, self._clock.time() + pause)
            attempt += 1

    def _read(self, read: Callable[[Response], T], response: Response) -> T:
        try:
            return read(response)
        except KontextError as invalid:
            raise self._transport.redact(invalid) from None
