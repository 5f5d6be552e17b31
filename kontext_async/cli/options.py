"""The options that several commands share, as attrs classes which cyclopts spreads over their signatures.

cyclopts shows the line of each attribute as its help text.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs
from attrs import field, frozen
from cyclopts import Group, Parameter

from kontext_async.cli.exit_codes import MissingApiKey
from kontext_async.cli.passwords import contains_password
from kontext_async.cli.secret_files import read_key_file, read_store_file
from kontext_async.cli.values import Duration, LocalPath, to_pairs
from kontext_async.errors import ConfigurationError
from kontext_async.settings import Limits, Network, Settings, Timeouts, find_api_key, find_gateway_name, find_store_url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kontext_async.gateways import Gateway
    from kontext_async.settings import StoreSettings
    from kontext_async.store.base import Store

__all__ = [
    "OUTPUT",
    "BulkOptions",
    "GatewayOptions",
    "OutputOptions",
    "RequestOptions",
    "RunOptions",
    "StoreOptions",
    "create_directory",
]

REQUEST = Group("Request", sort_key=1)
RUN = Group("Run", sort_key=2)
GATEWAY = Group("Gateway", sort_key=3)
OUTPUT = Group("Output", sort_key=4)


@Parameter(name="*", group=REQUEST)
@frozen(kw_only=True)
class RequestOptions:
    """The request fields except the prompt.

    Attributes:
        input_image: An image to edit or combine: a file, a URL or a data URI. Repeat it for up to four images.
        seed: Any integer; the gateway chooses one by default.
        aspect_ratio: Width to height, from 21:9 to 9:21.
        output_format: The format of the image; the gateway returns JPEG by default. WebP is for bfl only.
        prompt_upsampling: Let the gateway enrich the prompt.
        safety_tolerance: From 0 (strictest) to 6; the gateway uses 2 by default.
        model: The model ID; flux_kontext_pro by default.
        moderation: Have the gateway moderate the request, or not; the gateway decides by default.
        metadata: A text that the gateway stores with the task, for tracing. Repeatable.
    """

    input_image: Annotated[tuple[str, ...], Parameter(alias="-i", metavar="IMAGE", show_default=False)] = field(
        default=()
    )
    seed: int | None = None
    aspect_ratio: Annotated[str | None, Parameter(metavar="W:H")] = None
    output_format: Literal["jpeg", "png", "webp"] | None = None
    prompt_upsampling: Annotated[bool | None, Parameter(negative="--no-prompt-upsampling")] = None
    safety_tolerance: int | None = None
    model: Annotated[str | None, Parameter(metavar="ID")] = None
    moderation: Annotated[bool | None, Parameter(negative="--no-moderation")] = None
    metadata: Annotated[tuple[str, ...], Parameter(metavar="KEY=VALUE", show_default=False)] = ()

    def fields(self) -> Mapping[str, Any]:
        """Return the options that were given, by the names of the fields of `KontextRequest`.

        Raises:
            ConfigurationError: An option has a wrong form.
        """
        given = {name: value for name, value in attrs.asdict(self).items() if value not in (None, ())}
        if images := given.pop("input_image", None):
            given["input_images"] = images
        if self.metadata:
            try:
                given["metadata"] = to_pairs(self.metadata)
            except ValueError as error:
                raise ConfigurationError(f"--metadata {error}") from None
        return given


@Parameter(name="*", group=GATEWAY)
@frozen(kw_only=True)
class GatewayOptions:
    """The gateway to use, the way to it, and the time limit of a task.

    Attributes:
        gateway: The gateway; by default KONTEXT_GATEWAY, or else vtrix.
        base_url: The gateway's address; by default KONTEXT_BASE_URL, or else the public one.
        trusted_host: A host of tasks that may see the key, as HOST or HOST:PORT, for bfl. Repeatable.
        single_cluster: Every server behind the address knows every task, so that an ID is enough, for bfl.
        key_file: A file that contains the API key; by default KONTEXT_API_KEY, or the gateway's own BFL_API_KEY or
            FIREWORKS_API_KEY.
        proxy: An HTTP proxy for everything, or "none"; by default those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
        allow_network: A network that is not public, such as 10.0.0.0/8, to which image URLs may lead. Repeatable.
        timeout: The longest time to wait for one task: 90, 90s, 30m, 2h.
    """

    gateway: Literal["vtrix", "vtrix-queue", "bfl", "fireworks"] | None = None
    base_url: Annotated[str | None, Parameter(metavar="URL")] = None
    trusted_host: Annotated[tuple[str, ...], Parameter(metavar="HOST", show_default=False)] = ()
    single_cluster: Annotated[bool, Parameter(show_default=False)] = False
    key_file: Annotated[LocalPath | None, Parameter(metavar="PATH")] = None
    proxy: Annotated[str | None, Parameter(metavar="URL")] = None
    allow_network: Annotated[tuple[str, ...], Parameter(metavar="NETWORK", show_default=False)] = ()
    timeout: Duration | None = None

    def api_key(self) -> str:
        """Return the API key, from the file or from the environment: there, the gateway's own variable comes first.

        Raises:
            MissingApiKey: There is no key, or it cannot be read or sent.
            ConfigurationError: The environment names a gateway that there is not.
        """
        if self.key_file is not None:
            return read_key_file(self.key_file)
        variables = self.dialect().key_variables
        try:
            return find_api_key(None, variables=variables)
        except ConfigurationError as error:
            reason = str(error).partition(":")[0]
            names = " or ".join((*variables, "KONTEXT_API_KEY"))
            raise MissingApiKey(f"{reason}: set {names}, or use --key-file PATH") from None

    def dialect(self) -> type[Gateway]:
        """Return the dialect of the gateway.

        Raises:
            ConfigurationError: The environment names a gateway that there is not.
        """
        from kontext_async.gateways import DEFAULT_GATEWAY, find_gateway  # noqa: PLC0415 # help does without

        return find_gateway(find_gateway_name(self.gateway, DEFAULT_GATEWAY))

    def arguments(self) -> list[str]:
        """Return the options that lead another command to the same gateway."""
        given = [] if self.gateway is None else ["--gateway", self.gateway]
        given += ["--base-url", self.base_url] if self.base_url else []
        for host in self.trusted_host:
            given += ["--trusted-host", host]
        return given + ["--single-cluster"] * self.single_cluster

    def settings(self) -> Settings:
        """Return the session's settings.

        Raises:
            ConfigurationError: An option is out of its range.
        """
        proxies = {} if self.proxy is None else {"proxy": None if self.proxy.lower() == "none" else self.proxy}
        return Settings(
            timeouts=Timeouts() if self.timeout is None else Timeouts(wait=self.timeout),
            network=Network(allow=self.allow_network, **proxies),
        )


@Parameter(name="*", group=GATEWAY)
@frozen(kw_only=True)
class RunOptions(GatewayOptions):
    """The gateway to use, the way to it, the time limit of a task, and how much to do at once.

    Attributes:
        emulator: Use a private emulator of the gateway in this process: it needs no API key and costs nothing.
        max_in_flight: The most unfinished tasks at once.
        polls_per_second: The most status requests per second.
    """

    emulator: Annotated[bool, Parameter(show_default=False)] = False
    max_in_flight: Annotated[int, Parameter(metavar="N")] = Limits().max_in_flight
    polls_per_second: Annotated[float, Parameter(metavar="N")] = Limits().polls_per_second

    def settings(self) -> Settings:
        """Return the session's settings.

        Raises:
            ConfigurationError: An option is out of its range, or options contradict each other.
        """
        if self.emulator and any((self.base_url, self.trusted_host, self.key_file, self.proxy)):
            raise ConfigurationError(
                "--emulator is a gateway of its own: it cannot be combined with --base-url, --trusted-host, --key-file "
                "or --proxy"
            )
        settings = super().settings()
        return attrs.evolve(
            settings,
            limits=Limits(max_in_flight=self.max_in_flight, polls_per_second=self.polls_per_second),
            network=Network(proxy=None) if self.emulator else settings.network,
        )


@Parameter(name="*", group=RUN)
@frozen(kw_only=True)
class BulkOptions:
    """The cost limit of a durable run, what it resubmits, and what it does in an outage.

    Attributes:
        max_cost: USD that the run may spend in all. Before that is exceeded, submitting stops (exit code 1).
        resend_uncertain: Resubmit uncertain requests. They may be billed twice.
        retry_failed: Resubmit failed and expired requests.
        dry_run: Check everything, print what would be done and what it would cost, and submit nothing.
        filename_template: The names of images, from index, slug, ext, task_id, seed, model, fingerprint and occurrence.
        grace: The time that tasks in flight get after the first Ctrl-C or SIGTERM.
        on_outage: What to do when submitting stops because of an outage: wait until it is over, or stop the run.
        outage_timeout: The longest outage to wait for, such as 30m; after that, the run stops. No limit by default.
    """

    max_cost: Annotated[str | None, Parameter(metavar="USD")] = None
    resend_uncertain: Annotated[bool, Parameter(show_default=False)] = False
    retry_failed: Annotated[bool, Parameter(show_default=False)] = False
    dry_run: Annotated[bool, Parameter(show_default=False)] = False
    filename_template: Annotated[str, Parameter(metavar="TEMPLATE")] = "{index:06d}-{slug}.{ext}"
    grace: Duration = 30.0
    on_outage: Literal["wait", "stop"] = "wait"
    outage_timeout: Duration | None = None

    def run_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `BulkRun`.

        Raises:
            ConfigurationError: An option is out of its range.
        """
        try:
            limit = None if self.max_cost is None else Decimal(self.max_cost)
        except InvalidOperation:
            raise ConfigurationError(f"--max-cost {self.max_cost}: it must be a number of USD") from None
        return {
            "max_cost": limit,
            "resend_uncertain": self.resend_uncertain,
            "retry_failed": self.retry_failed,
            "filename_template": self.filename_template,
            "on_outage": self.on_outage,
            "outage_timeout": self.outage_timeout,
        }


@Parameter(name="*", group=RUN)
@frozen(kw_only=True)
class StoreOptions:
    """The store of a durable run, and the name of the run in it.

    Attributes:
        run: The name of the run in a store that several workers share; each needs a DIR of its own.
        store: The URL of the store, such as postgresql://HOST/NAME; by default KONTEXT_STORE, or else a file in DIR.
        store_file: A file that contains the URL of the store, for one with a password.
    """

    run: Annotated[str | None, Parameter(metavar="NAME")] = None
    store: Annotated[str | None, Parameter(metavar="URL")] = None
    store_file: Annotated[LocalPath | None, Parameter(metavar="PATH")] = None

    def url(self) -> str | None:
        """Return the URL of the store; None for the store in the directory.

        Raises:
            ConfigurationError: The options contradict each other, a password is among the arguments, or the file cannot
                be read.
        """
        if self.store is not None and self.store_file is not None:
            raise ConfigurationError("--store and --store-file cannot be combined")
        if self.store is not None and contains_password(self.store):
            raise ConfigurationError(
                "--store contains a password, which others can read in the list of processes: change it, and set "
                "KONTEXT_STORE, or use --store-file PATH"
            )
        url = find_store_url(self.store) if self.store_file is None else read_store_file(self.store_file)
        if self.run is not None and url is None:
            raise ConfigurationError(f"--run {self.run} needs a store: use --store, --store-file or KONTEXT_STORE")
        return url

    def new_store(self, settings: StoreSettings) -> Store | None:
        """Return the store, not opened yet; None for the store in the directory.

        Raises:
            ConfigurationError: As for `url`, or the URL is not one of a store.
        """
        url = self.url()
        if url is None:
            return None
        from kontext_async.store.urls import store_from_url  # noqa: PLC0415 # it needs an extra, and takes its time

        return store_from_url(url, settings)


@Parameter(name="*", group=OUTPUT)
@frozen(kw_only=True)
class OutputOptions:
    """The amount and the form of the output.

    Attributes:
        json: Print one JSON object per line on stdout.
        quiet: Print only results and errors.
        verbose: Print the log on stderr: each request, retry and refusal.
        log_file: Append the log to a file.
    """

    json: Annotated[bool, Parameter(show_default=False)] = False
    quiet: Annotated[bool, Parameter(alias="-q", show_default=False)] = False
    verbose: Annotated[bool, Parameter(alias="-v", show_default=False)] = False
    log_file: Annotated[LocalPath | None, Parameter(metavar="PATH")] = None


def create_directory(directory: Path) -> None:
    """Create the directory that ``--out`` names, before anything is billed.

    Raises:
        ConfigurationError: It cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {directory} cannot be created: {error.strerror or error}") from None
