"""A session for a command that takes up earlier tasks."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kontext_async.cli.gateway import gateway
from kontext_async.cli.listeners import EventLines
from kontext_async.session import KontextSession

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kontext_async.cli.options import GatewayOptions
    from kontext_async.cli.output import Output

__all__ = ["attended_session"]


@asynccontextmanager
async def attended_session(options: GatewayOptions, output: Output) -> AsyncGenerator[KontextSession, None]:
    """A session that is open, with its events printed when the user wants that.

    Raises:
        NoUsableKey: There is no key.
        ConfigurationError: An option is out of its range.
    """
    async with gateway(options) as service:
        session = KontextSession(service.api_key, base_url=service.base_url, settings=options.settings())
        if output.options.verbose:
            session.subscribe(EventLines(output))
        async with session:
            yield session
