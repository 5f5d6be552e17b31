"""``kontext-async emulator``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from cyclopts import Group, Parameter

from kontext_async.cli.exits import ExitCode
from kontext_async.cli.options import OUTPUT, OutputOptions
from kontext_async.cli.output import Output
from kontext_async.errors import ConfigurationError

if TYPE_CHECKING:
    from kontext_async.emulator import Emulator, Faults

__all__ = ["FAULT_KINDS", "emulator"]

FAULT_KINDS = (
    "cut-before-body, cut, cut-after-accept, cut-halfway, slow, slow-after-accept, stall, stall-after-accept, "
    "stall-halfway, trickle, rate-limited, http-status, http-status-after-accept, unavailable, bad-gateway, "
    "gateway-timeout, unauthorized, forbidden, not-found, redirect, html-page, truncated-json, short-body, "
    "malformed-json, wrong-types, empty-body, odd-status, odd-error, odd-cost, odd-output, odd-progress, "
    "milliseconds, extra-keys, several-urls, task-fails, task-hangs, task-vanishes, task-late, completed-at-once, "
    "failed-at-once, url-expired, truncated-file, empty-file, no-ranges, cost-unknown"
)
"""The emulator's kinds of fault, written out: to import them would bring the emulator into every help page."""

FAULT_HELP = (
    "Something that misbehaves, and how often: KIND=RATE, with a rate from 0 to 1 a request. May be given several "
    f"times. Kinds: {FAULT_KINDS}."
)

ACCOUNT = Group("Account", sort_key=1)
BEHAVIOUR = Group("Behaviour", sort_key=2)


@Parameter(name="*", group=ACCOUNT)
@frozen(kw_only=True)
class AccountOptions:
    """Who is served, and at what price.

    Attributes:
        key: The key that is accepted. It is no secret: it opens nothing but this emulator.
        balance: USD on the account; over that 403. Without it there is no limit.
        price: USD for a picture.
        max_tasks: Unfinished tasks at once; over that 429. Without it there is no limit.
        requests_per_second: Requests a second; over that 429. Without it there is no limit.
    """

    key: str = "emulator-key"
    balance: Annotated[str | None, Parameter(metavar="USD")] = None
    price: Annotated[str, Parameter(metavar="USD")] = "0.04"
    max_tasks: Annotated[int | None, Parameter(metavar="N")] = None
    requests_per_second: Annotated[float | None, Parameter(metavar="N")] = None


@Parameter(name="*", group=BEHAVIOUR)
@frozen(kw_only=True)
class BehaviourOptions:
    """How tasks, pictures and misfortunes come about.

    Attributes:
        service_time: Seconds that tasks take: 0.5, constant:2, lognormal:MEDIAN,CV, gamma:SHAPE,MEAN or
            bimodal:FAST,SLOW,SHARE.
        pixels: About how many pixels a picture has.
        url_lifetime: Seconds until a picture's URL expires.
        seed: Of everything that is random.
        fault: What misbehaves.
    """

    service_time: Annotated[str, Parameter(metavar="TIME")] = "lognormal:0.3,0.5"
    pixels: Annotated[int, Parameter(metavar="N")] = 640 * 640
    url_lifetime: Annotated[float, Parameter(metavar="SECONDS")] = 600.0
    seed: int = 0
    fault: Annotated[tuple[str, ...], Parameter(metavar="KIND=RATE", help=FAULT_HELP, show_default=False)] = ()


async def emulator(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(metavar="N")] = 0,
    account: AccountOptions | None = None,
    behaviour: BehaviourOptions | None = None,
    quiet: Annotated[bool, Parameter(alias="-q", group=OUTPUT, show_default=False)] = False,
) -> int:
    """Run the gateway's emulator until it is interrupted, for trying and testing without a key and without paying.

    The first line on stdout is its address.

    Args:
        host: The address to listen at.
        port: The port; 0 takes any free one.
        account: Who is served, and at what price.
        behaviour: How tasks, pictures and misfortunes come about.
        quiet: Print the address only.
    """
    from kontext_async.cli.signals import until_terminated  # noqa: PLC0415 # it takes its time

    try:
        made = _emulator(host, port, account or AccountOptions(), behaviour or BehaviourOptions())
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"the emulator cannot be made: {error}") from None
    return await until_terminated(_serve(made, quiet=quiet))


def _emulator(host: str, port: int, account: AccountOptions, behaviour: BehaviourOptions) -> Emulator:
    from kontext_async.cli.gateway import check_pillow  # noqa: PLC0415 # it takes its time

    check_pillow()
    from kontext_async.emulator import Emulator, ServiceTime  # noqa: PLC0415 # it needs Pillow

    return Emulator(
        host=host,
        port=port,
        api_key=account.key,
        balance=account.balance,
        price=account.price,
        max_tasks=account.max_tasks,
        requests_per_second=account.requests_per_second,
        service_time=ServiceTime.parse(behaviour.service_time),
        url_lifetime=behaviour.url_lifetime,
        seed=behaviour.seed,
        faults=_faults(behaviour.fault),
        pixels=behaviour.pixels,
    )


def _faults(given: tuple[str, ...]) -> Faults:
    from kontext_async.emulator import Faults  # noqa: PLC0415 # it needs Pillow

    rates: dict[str, float] = {}
    for text in given:
        kind, _, rate = text.partition("=")
        try:
            rates[kind] = float(rate)
        except ValueError:
            raise ValueError(f"--fault {text}: it must be KIND=RATE, with a rate from 0 to 1") from None
    return Faults(rates)


async def _serve(made: Emulator, *, quiet: bool) -> int:
    import asyncio  # noqa: PLC0415 # these take their time

    import anyio  # noqa: PLC0415

    output = Output(OutputOptions(quiet=quiet))
    try:
        await made.start()
    except OSError as error:
        raise ConfigurationError(f"the emulator cannot listen at {made.host}:{made.port}: {error.strerror}") from None
    try:
        output.out(made.base_url)
        output.note(
            "the emulator is running; in another terminal: "
            f"KONTEXT_BASE_URL={made.base_url} KONTEXT_API_KEY={made.api_key} kontext-async generate 'a red fox'"
        )
        with suppress(asyncio.CancelledError):  # a signal is how this ends
            await anyio.sleep_forever()
    finally:
        await made.aclose()
    output.note(f"ledger: {made.ledger.accepted} accepted, {made.ledger.billed} billed, {made.ledger.spent} USD")
    return ExitCode.DONE
