"""The options that several commands share, as attrs classes which cyclopts spreads over their signatures."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from pathlib import Path  # noqa: TC003 # cyclopts resolves it
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs
from attrs import field, frozen
from cyclopts import Group, Parameter

from kontext_async.cli.exits import NoUsableKey
from kontext_async.errors import ConfigurationError
from kontext_async.settings import Limits, Settings, Timeouts, api_key_from

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BulkOptions", "GatewayOptions", "OutputOptions", "RequestOptions", "RunOptions"]

REQUEST = Group("Request", sort_key=1)
RUN = Group("Run", sort_key=2)
GATEWAY = Group("Gateway", sort_key=3)
OUTPUT = Group("Output", sort_key=4)


@Parameter(name="*", group=REQUEST)
@frozen(kw_only=True)
class RequestOptions:
    """The fields of a request beside its prompt.

    Attributes:
        input_image: An image to edit or to combine: a file, a URL or a data URI. May be given up to four times.
        seed: Any integer; without it the server picks one.
        aspect_ratio: W:H, between 21:9 and 9:21.
        output_format: The kind of picture; without it the server makes JPEG.
        prompt_upsampling: Let the server enrich the prompt.
        safety_tolerance: 0 (strictest) to 6; without it the server takes 2.
        model: The model's id; without it flux_kontext_pro.
    """

    input_image: Annotated[tuple[str, ...], Parameter(alias="-i", metavar="IMAGE", show_default=False)] = field(
        default=()
    )
    seed: int | None = None
    aspect_ratio: Annotated[str | None, Parameter(metavar="W:H")] = None
    output_format: Literal["jpeg", "png"] | None = None
    prompt_upsampling: Annotated[bool | None, Parameter(negative="--no-prompt-upsampling")] = None
    safety_tolerance: int | None = None
    model: Annotated[str | None, Parameter(metavar="ID")] = None

    def fields(self) -> Mapping[str, Any]:
        """What was given, by the names of `KontextRequest`'s fields."""
        given = {name: value for name, value in attrs.asdict(self).items() if value not in (None, ())}
        if images := given.pop("input_image", None):
            given["input_images"] = images
        return given


@Parameter(name="*", group=GATEWAY)
@frozen(kw_only=True)
class GatewayOptions:
    """Which gateway is asked, and how long.

    Attributes:
        base_url: The gateway's address; without it KONTEXT_BASE_URL, or else the public gateway's.
        key_file: A file that holds the API key; without it KONTEXT_API_KEY.
        timeout: Seconds for one task.
    """

    base_url: Annotated[str | None, Parameter(metavar="URL")] = None
    key_file: Annotated[Path | None, Parameter(metavar="PATH")] = None
    timeout: Annotated[float | None, Parameter(metavar="SECONDS")] = None

    def api_key(self) -> str:
        """The key, from the file or from the environment.

        Raises:
            NoUsableKey: There is none, or none that can be sent.
        """
        try:
            return api_key_from(None if self.key_file is None else self.key_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise NoUsableKey(f"the key file {self.key_file} cannot be read: {reason}") from None
        except ConfigurationError as error:
            raise NoUsableKey(f"{error} (--key-file PATH names a file that holds it)") from None

    def settings(self) -> Settings:
        """The session's settings.

        Raises:
            ConfigurationError: An option is out of its range.
        """
        return Settings(timeouts=Timeouts() if self.timeout is None else Timeouts(wait=self.timeout))


@Parameter(name="*", group=GATEWAY)
@frozen(kw_only=True)
class RunOptions(GatewayOptions):
    """Which gateway is asked, how long, and how much at once.

    Attributes:
        emulator: Use a private emulator of the gateway, in this process: no key is needed, and nothing is paid.
        max_in_flight: Unfinished tasks at once, at most.
        polls_per_second: Status requests a second, at most.
    """

    emulator: Annotated[bool, Parameter(show_default=False)] = False
    max_in_flight: Annotated[int, Parameter(metavar="N")] = Limits().max_in_flight
    polls_per_second: Annotated[float, Parameter(metavar="N")] = Limits().polls_per_second

    def settings(self) -> Settings:
        """The session's settings.

        Raises:
            ConfigurationError: An option is out of its range, or options contradict each other.
        """
        if self.emulator and (self.base_url is not None or self.key_file is not None):
            raise ConfigurationError("--emulator is a gateway of its own: it takes no --base-url and no --key-file")
        limits = Limits(max_in_flight=self.max_in_flight, polls_per_second=self.polls_per_second)
        return attrs.evolve(super().settings(), limits=limits)


@Parameter(name="*", group=RUN)
@frozen(kw_only=True)
class BulkOptions:
    """How much a durable run spends, and what it tries again.

    Attributes:
        max_cost: USD that all runs in DIR may spend together. Submitting stops before what is spent and what is in
            flight can pass it; the exit code is 1 then.
        resend_uncertain: Submit those again of which nobody knows whether they were accepted: it may pay twice.
        retry_failed: Submit those again that failed, or whose pictures can be had no more.
        dry_run: Check everything, say what would be done and what it would cost, and submit nothing.
        name: How pictures are named, with index, slug, ext, task_id, seed, model, fingerprint and occurrence.
        journal: A database for the journal, as a URL; without it a file in DIR.
        grace: Seconds that are left to what is in flight after the first Ctrl-C or SIGTERM.
    """

    max_cost: Annotated[str | None, Parameter(metavar="USD")] = None
    resend_uncertain: Annotated[bool, Parameter(show_default=False)] = False
    retry_failed: Annotated[bool, Parameter(show_default=False)] = False
    dry_run: Annotated[bool, Parameter(show_default=False)] = False
    name: Annotated[str, Parameter(metavar="TEMPLATE")] = "{index:06d}-{slug}.{ext}"
    journal: Annotated[str | None, Parameter(metavar="URL")] = None
    grace: Annotated[float, Parameter(metavar="SECONDS")] = 30.0

    def arguments(self) -> dict[str, Any]:
        """What `BulkRun` takes.

        Raises:
            ConfigurationError: An option is out of its range.
        """
        try:
            limit = None if self.max_cost is None else Decimal(self.max_cost)
        except InvalidOperation:
            raise ConfigurationError(f"--max-cost {self.max_cost}: it must be a number of USD") from None
        if not 0 <= self.grace < math.inf:
            raise ConfigurationError(f"--grace {self.grace}: it must be a finite number of seconds, at least 0")
        return {
            "max_cost": limit,
            "resend_uncertain": self.resend_uncertain,
            "retry_failed": self.retry_failed,
            "name": self.name,
            "journal": self.journal,
        }


@Parameter(name="*", group=OUTPUT)
@frozen(kw_only=True)
class OutputOptions:
    """What is printed.

    Attributes:
        json: Print a JSON object a line on stdout, for machines.
        quiet: Print results and errors only.
        verbose: Print every event on stderr.
    """

    json: Annotated[bool, Parameter(show_default=False)] = False
    quiet: Annotated[bool, Parameter(alias="-q", show_default=False)] = False
    verbose: Annotated[bool, Parameter(alias="-v", show_default=False)] = False
