"""The command ``kontext-async balance``."""

from __future__ import annotations

import json

from kontext_async.cli.exit_codes import ExitCode
from kontext_async.cli.options import GatewayOptions, OutputOptions
from kontext_async.cli.output import Output
from kontext_async.cli.session import open_session
from kontext_async.cli.signals import run_with_signals

__all__ = ["balance"]


async def balance(*, gateway: GatewayOptions | None = None, output: OutputOptions | None = None) -> int:
    """Print the balance of the account.

    Args:
        gateway: The gateway to use.
        output: The output options.
    """
    return await run_with_signals(_balance(gateway or GatewayOptions(), Output(output or OutputOptions())))


async def _balance(options: GatewayOptions, output: Output) -> int:
    async with open_session(options, output) as session:
        amount = f"{await session.balance():f}"
    output.out(json.dumps({"balance": amount, "currency": "USD"}) if output.options.json else f"{amount} USD")
    return ExitCode.DONE
