"""Opens the gateway of a command, which is the real one or a private emulator, and a session with it."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from attrs import field, frozen

from kontext_async.cli.app import remember_key
from kontext_async.cli.logs import show_log
from kontext_async.cli.options import RunOptions
from kontext_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from kontext_async.cli.options import GatewayOptions
    from kontext_async.cli.output import Output
    from kontext_async.emulator import Ledger
    from kontext_async.session import KontextSession
    from kontext_async.settings import Settings

__all__ = ["Gateway", "check_pillow", "open_gateway", "open_session", "summarize_ledger"]


@frozen(kw_only=True)
class Gateway:
    """The address and the key of the gateway that a command uses.

    Attributes:
        name: The name of its dialect; None for that of the environment.
        api_key: The API key.
        base_url: The address; None for that of the environment.
        trusted_hosts: Hosts of tasks that may see the key.
        single_cluster: True if an ID is enough.
        arguments: The options that lead another command there.
        ledger: The ledger of a private emulator; None for any other gateway.
    """

    name: str | None
    api_key: str = field(repr=False)
    base_url: str | None
    trusted_hosts: tuple[str, ...] = ()
    single_cluster: bool = False
    arguments: Sequence[str] = ()
    ledger: Ledger | None = None

    def new_session(self, settings: Settings) -> KontextSession:
        """Create a session; the caller opens it."""
        from kontext_async.session import KontextSession  # noqa: PLC0415 # aiohttp is slow to import, and help needs none

        return KontextSession(
            self.api_key,
            base_url=self.base_url,
            gateway=self.name,
            trusted_hosts=self.trusted_hosts,
            single_cluster=self.single_cluster,
            settings=settings,
        )

    def print_ledger(self, output: Output) -> None:
        """Print the ledger of a private emulator."""
        if self.ledger is not None:
            output.note(summarize_ledger(self.ledger))


def summarize_ledger(ledger: Ledger) -> str:
    """Return the sums of an emulator's ledger as a line."""
    return f"ledger: {ledger.accepted} accepted, {ledger.billed} billed, {ledger.spent} USD"


def check_pillow() -> None:
    """Check that Pillow is installed, with which the emulator paints its images.

    Raises:
        ConfigurationError: It is not installed.
    """
    if find_spec("PIL") is None:
        raise ConfigurationError("the emulator needs Pillow: pip install 'kontext_async[emulator]'")


@asynccontextmanager
async def open_gateway(options: GatewayOptions, output: Output) -> AsyncGenerator[Gateway, None]:
    """Open the gateway for as long as the command runs, and show the log of its sessions as the output options say.

    Raises:
        MissingApiKey: There is no usable API key.
        ConfigurationError: The log file cannot be opened, or the options ask for an emulator without Pillow.
    """
    with show_log(output):
        if not isinstance(options, RunOptions) or not options.emulator:
            key = options.api_key()
            remember_key(key)
            yield Gateway(
                name=options.gateway,
                api_key=key,
                base_url=options.base_url,
                trusted_hosts=options.trusted_host,
                single_cluster=options.single_cluster,
                arguments=options.arguments(),
            )
            return
        check_pillow()
        from kontext_async.emulator import Emulator  # noqa: PLC0415 # it needs Pillow

        # The seed is random because a resumed run may know task IDs of an earlier private emulator: none may recur.
        async with Emulator(seed=secrets.randbits(63)) as emulator:
            key = emulator.api_key or "emulator-key"
            dialect = options.dialect()
            yield Gateway(
                name=dialect.name,
                api_key=key,
                base_url=emulator.base_url_of(dialect.name),
                trusted_hosts=emulator.region_hosts if dialect.features.has_addresses else (),
                single_cluster=options.single_cluster,
                ledger=emulator.ledger,
            )


@asynccontextmanager
async def open_session(options: GatewayOptions, output: Output) -> AsyncGenerator[KontextSession, None]:
    """Open a session.

    Raises:
        MissingApiKey: There is no usable API key.
        ConfigurationError: An option is out of its range, or the log file cannot be opened.
    """
    async with open_gateway(options, output) as gateway, gateway.new_session(options.settings()) as session:
        yield session
