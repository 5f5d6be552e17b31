"""Asks the gateway for prices. That can be repeated safely: nothing is generated or billed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kontext_async.decisions.resend import backoff
from kontext_async.engine.clock import sleep_until
from kontext_async.engine.request_log import LoggedRequest
from kontext_async.engine.transport import TransportError
from kontext_async.errors import GatewayUnavailable, InvalidRequest, KontextError
from kontext_async.images import OneShotReader
from kontext_async.protocol import encode_create, read_estimate

if TYPE_CHECKING:
    from kontext_async.engine.context import Context
    from kontext_async.engine.transport import Response, Transport
    from kontext_async.engine.uploads import UploadLimiter
    from kontext_async.models import Estimate, KontextRequest
    from kontext_async.protocol import CreateBody

__all__ = ["Estimator"]


class Estimator:
    """Fetches the gateway's prices."""

    def __init__(self, transport: Transport, uploads: UploadLimiter, context: Context) -> None:
        self._transport = transport
        self._uploads = uploads
        self._retries = context.settings.retries
        self._clock = context.clock
        self._random = context.random

    async def estimate(self, request: KontextRequest) -> Estimate:
        """Ask for the price of a request.

        Raises:
            InvalidRequest: An input image is unreadable.
            GatewayError: The gateway refused, was unreachable, or its response is unreadable.
        """
        for index, source in enumerate(request.input_images):
            if isinstance(source, OneShotReader):
                rule = "an async reader can be read only once: estimate the request without it"
                raise InvalidRequest(f"input_images[{index}]", source.reader, rule)
        with await self._uploads.open_images(request.input_images) as images:
            return await self._estimate(encode_create(request, images.images))

    async def _estimate(self, body: CreateBody) -> Estimate:
        attempt = 1
        while True:
            try:
                with LoggedRequest("price", self._clock, attempt=attempt) as logged:
                    response = await self._transport.precharge(self._uploads.upload(body))
                    logged.responded(response.status)
            except TransportError as lost:
                error: KontextError = GatewayUnavailable(f"no response to a price request: {lost}")
                error.__cause__ = lost.__cause__
            else:
                if response.ok:
                    return self._read(response)
                error = self._transport.read_refusal(response)
            if not error.retryable or attempt >= self._retries.attempts:
                raise error
            pause = backoff(attempt, self._retries, self._random.random())
            await sleep_until(self._clock, self._clock.time() + pause)
            attempt += 1

    def _read(self, response: Response) -> Estimate:
        try:
            return read_estimate(response.body, status=response.status)
        except KontextError as invalid:
            raise self._transport.redact(invalid) from None
