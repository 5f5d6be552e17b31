"""Asks what a request would cost. That is safe to repeat: nothing is made, and nothing is paid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kontext_async.decisions.resend import backoff
from kontext_async.engine.clock import sleep_until
from kontext_async.engine.transport import RequestLost
from kontext_async.errors import GatewayUnavailable, InvalidRequest, KontextError
from kontext_async.images import SingleUse
from kontext_async.protocol import encode_create, read_estimate, refusal

if TYPE_CHECKING:
    from kontext_async.engine.context import Context
    from kontext_async.engine.transport import Transport
    from kontext_async.models import Estimate, KontextRequest
    from kontext_async.protocol import CreateBody

__all__ = ["Pricer"]


class Pricer:
    """Learns the gateway's prices."""

    def __init__(self, transport: Transport, context: Context) -> None:
        self._transport = transport
        self._retries = context.settings.retries
        self._clock = context.clock
        self._random = context.random

    async def estimate(self, request: KontextRequest) -> Estimate:
        """What the gateway says that a request would cost.

        Raises:
            InvalidRequest: An input image cannot be read.
            GatewayError: It refused, could not be reached, or its answer cannot be read.
        """
        for index, source in enumerate(request.input_images):
            if isinstance(source, SingleUse):
                rule = "an async reader is read once, and not for a price: ask for that of a request without it"
                raise InvalidRequest(f"input_images[{index}]", source.reader, rule)
        async with self._transport.uploads.carrying(request.input_images) as cargo:
            return await self._estimate(encode_create(request, cargo.images))

    async def _estimate(self, body: CreateBody) -> Estimate:
        attempt = 1
        while True:
            try:
                answer = await self._transport.precharge(body)
            except RequestLost as lost:
                error: KontextError = GatewayUnavailable(f"no answer to a question for the price: {lost}")
                error.__cause__ = lost.__cause__
            else:
                try:
                    if answer.ok:
                        return read_estimate(answer.body, status=answer.status)
                except KontextError as malformed:
                    raise self._transport.told(malformed) from None
                error = self._transport.told(refusal(answer.status, answer.body, request_id=answer.request_id))
            if not error.retryable or attempt >= self._retries.attempts:
                raise error
            pause = backoff(attempt, self._retries, self._random.random())
            await sleep_until(self._clock, self._clock.time() + pause)
            attempt += 1
