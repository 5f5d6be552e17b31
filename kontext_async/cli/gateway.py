"""The gateway that a command speaks to: the one that is named, or a private emulator."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from attrs import field, frozen

from kontext_async.cli.options import RunOptions
from kontext_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kontext_async.cli.options import GatewayOptions
    from kontext_async.emulator import Ledger

__all__ = ["Gateway", "check_pillow", "gateway"]


@frozen(kw_only=True)
class Gateway:
    """Where requests go.

    Attributes:
        api_key: The key.
        base_url: The address, None for what the environment says.
        ledger: What a private emulator billed, None for any other gateway.
    """

    api_key: str = field(repr=False)
    base_url: str | None
    ledger: Ledger | None = None

    def bill(self) -> str | None:
        """What a private emulator's ledger says, as a line for people."""
        if self.ledger is None:
            return None
        return f"ledger: {self.ledger.accepted} accepted, {self.ledger.billed} billed, {self.ledger.spent} USD"


def check_pillow() -> None:
    """The emulator paints its pictures with Pillow.

    Raises:
        ConfigurationError: It is not installed.
    """
    if find_spec("PIL") is None:
        raise ConfigurationError("the emulator needs Pillow: pip install 'kontext_async[emulator]'")


@asynccontextmanager
async def gateway(options: GatewayOptions) -> AsyncGenerator[Gateway, None]:
    """The gateway for as long as the command runs.

    Raises:
        NoUsableKey: There is no key.
        ConfigurationError: An emulator is wanted, and Pillow is not installed.
    """
    if not isinstance(options, RunOptions) or not options.emulator:
        yield Gateway(api_key=options.api_key(), base_url=options.base_url)
        return
    check_pillow()
    from kontext_async.emulator import Emulator  # noqa: PLC0415 # it needs Pillow

    # ids that an earlier private emulator gave out must not be given out again: a run that goes on may know them
    async with Emulator(seed=secrets.randbits(63)) as emulator:
        yield Gateway(api_key=emulator.api_key or "emulator-key", base_url=emulator.base_url, ledger=emulator.ledger)
