"""The command ``kontext-async emulator``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal

import anyio
from attrs import frozen
from cyclopts import Group, Parameter

from kontext_async.cli.exit_codes import ExitCode
from kontext_async.cli.options import OUTPUT, OutputOptions
from kontext_async.cli.output import Output
from kontext_async.cli.session import check_pillow, summarize_ledger
from kontext_async.cli.signals import run_with_signals
from kontext_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.emulator import Emulator

__all__ = ["FAULT_KINDS", "AccountOptions", "BehaviorOptions", "emulator"]

FAULT_KINDS = (
    "cut-before-body, cut, cut-after-accept, cut-halfway, slow, slow-after-accept, stall, stall-after-accept, "
    "stall-halfway, trickle, echoed-head, large-header, many-headers, missing-last-chunk, length-too-long, "
    "rate-limited, http-status, http-status-after-accept, unavailable, bad-gateway, gateway-timeout, unauthorized, "
    "forbidden, balance-too-low, echoed-key, control-characters, not-found, errors-in-success, status-in-error, "
    "not-found-in-success, redirect, html-page, truncated-json, short-body, malformed-json, wrong-types, "
    "empty-body, odd-status, odd-error, odd-cost, odd-output, odd-progress, milliseconds, extra-keys, odd-address, "
    "cut-address, result-in-status, failed-result, several-urls, opaque-url, echoed-key-in-task, "
    "control-characters-in-task, nonsense-cost, many-urls, odd-url, task-fails, task-moderated, task-hangs, "
    "task-vanishes, task-late, completed-at-once, failed-at-once, task-ends-oddly, repeated-id, url-expired, "
    "truncated-file, empty-file, no-ranges, range-refused, range-of-another-file, trailing-bytes, encoded-file, "
    "negotiated-format, cancel-late, cancel-ignored, cancel-refused, cut-after-cancel, webhook-lost, webhook-twice, "
    "webhook-late, webhook-forged, cost-unknown"
)
"""The kinds of the emulator's faults, written out: to import them needs Pillow, and ``--help`` must not."""

FAULT_HELP = (
    "A fault and its rate, from 0 to 1 per request: KIND=RATE, such as cut=0.1. May be given several times. "
    f"Kinds: {FAULT_KINDS}."
)

ACCOUNT = Group("Account", sort_key=1)
BEHAVIOR = Group("Behavior", sort_key=2)


@Parameter(name="*", group=ACCOUNT)
@frozen(kw_only=True)
class AccountOptions:
    """The emulated account: its key, its balance, its prices and its limits.

    Attributes:
        key: The API key that the emulator accepts. It is no secret: it works for this emulator only.
        balance: The balance of the account; beyond it, requests get a 403. Unlimited by default.
        price: The price of an image.
        max_tasks: The most unfinished tasks at once; beyond that, requests get a 429. Unlimited by default.
        requests_per_second: The most requests per second; beyond that, requests get a 429. Unlimited by default.
    """

    key: str = "emulator-key"
    balance: Annotated[str | None, Parameter(metavar="USD")] = None
    price: Annotated[str, Parameter(metavar="USD")] = "0.04"
    max_tasks: Annotated[int | None, Parameter(metavar="N")] = None
    requests_per_second: Annotated[float | None, Parameter(metavar="N")] = None


@Parameter(name="*", group=BEHAVIOR)
@frozen(kw_only=True)
class BehaviorOptions:
    """The emulated tasks, images and faults.

    Attributes:
        service_time: The duration of tasks in seconds: 0.5, constant:2, lognormal:MEDIAN,CV, gamma:SHAPE,MEAN or
            bimodal:FAST,SLOW,SHARE.
        pixels: The approximate number of pixels of an image.
        url_lifetime: The time until the URL of an image expires.
        seed: The seed of everything random.
        fault: The faults and their rates.
    """

    service_time: Annotated[str, Parameter(metavar="TIME")] = "lognormal:0.3,0.5"
    pixels: Annotated[int, Parameter(metavar="N")] = 640 * 640
    url_lifetime: Annotated[float, Parameter(metavar="SECONDS")] = 600.0
    seed: int = 0
    fault: Annotated[tuple[str, ...], Parameter(metavar="KIND=RATE", help=FAULT_HELP, show_default=False)] = ()


async def emulator(
    *,
    gateway: Literal["vtrix", "vtrix-queue", "bfl", "fireworks"] = "vtrix",
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(metavar="N")] = 0,
    account: AccountOptions | None = None,
    behavior: BehaviorOptions | None = None,
    quiet: Annotated[bool, Parameter(alias="-q", group=OUTPUT, show_default=False)] = False,
) -> int:
    """Run the emulator until it is interrupted.

    Args:
        gateway: The gateway whose address is printed. The emulator speaks the dialects of all of them.
        host: The address to listen on.
        port: The port to listen on; 0 chooses a free one.
        account: The emulated account.
        behavior: The emulated tasks, images and faults.
        quiet: Print only the address.
    """
    try:
        created = _create_emulator(host, port, account or AccountOptions(), behavior or BehaviorOptions())
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"the emulator cannot start: {error}") from None
    return await run_with_signals(_serve(created, gateway, Output(OutputOptions(quiet=quiet))))


def _create_emulator(host: str, port: int, account: AccountOptions, behavior: BehaviorOptions) -> Emulator:
    check_pillow()
    from kontext_async.emulator import Emulator, Faults, ServiceTime  # noqa: PLC0415 # it needs Pillow

    return Emulator(
        host=host,
        port=port,
        api_key=account.key,
        balance=account.balance,
        price=account.price,
        max_tasks=account.max_tasks,
        requests_per_second=account.requests_per_second,
        service_time=ServiceTime.parse(behavior.service_time),
        url_lifetime=behavior.url_lifetime,
        seed=behavior.seed,
        faults=Faults(_parse_rates(behavior.fault)),
        pixels=behavior.pixels,
    )


def _parse_rates(given: tuple[str, ...]) -> Mapping[str, float]:
    """Return the rate of each kind of fault.

    Raises:
        ValueError: An option is not ``KIND=RATE``.
    """
    rates: dict[str, float] = {}
    for text in given:
        kind, _, rate = text.partition("=")
        try:
            rates[kind] = float(rate)
        except ValueError:
            raise ValueError(f"--fault {text}: it must be KIND=RATE, with a rate from 0 to 1") from None
    return rates


async def _serve(emulator: Emulator, gateway: str, output: Output) -> int:
    try:
        await emulator.start()
    except OSError as error:
        where = f"{emulator.host}:{emulator.port}"
        raise ConfigurationError(f"the emulator cannot listen on {where}: {error.strerror}") from None
    try:
        base_url = emulator.base_url_of(gateway)
        output.out(base_url)
        name = "" if gateway == "vtrix" else f"KONTEXT_GATEWAY={gateway} "
        output.note(
            "The emulator is running. To use it in another terminal: "
            f"export {name}KONTEXT_BASE_URL={base_url} KONTEXT_API_KEY={emulator.api_key}"
        )
        if gateway == "bfl":
            hosts = " ".join(f"--trusted-host {host}" for host in emulator.region_hosts)
            output.note(f"Its tasks have another host: {hosts}")
        with suppress(asyncio.CancelledError):  # a signal ends the emulator
            await anyio.sleep_forever()
    finally:
        await emulator.aclose()
    output.note(summarize_ledger(emulator.ledger))
    return ExitCode.DONE
