"""The options that choose the gateway, on each of them."""

from __future__ import annotations

import shlex
from decimal import Decimal
from typing import TYPE_CHECKING, get_args, get_type_hints

import pytest
from cli_support import image_names

from kontext_async.cli.commands import emulator as emulator_command
from kontext_async.cli.options import GatewayOptions
from kontext_async.gateways import GATEWAYS, Reference

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import RunCommand, Serve

    from kontext_async.emulator import Emulator

NAMES = tuple(GATEWAYS)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    gateway: str = request.param
    return gateway


@pytest.fixture
def emulator(serve: Serve) -> Emulator:
    return serve()


def hosts_of(name: str, emulator: Emulator) -> list[str]:
    return [part for host in emulator.region_hosts for part in ("--trusted-host", host)] if name == "bfl" else []


def options_of(name: str, emulator: Emulator) -> list[str]:
    return ["--gateway", name, "--base-url", emulator.base_url_of(name), *hosts_of(name, emulator)]


def test_the_options_name_all_gateways() -> None:
    [choices] = [each for each in get_args(get_type_hints(GatewayOptions)["gateway"]) if each is not type(None)]
    assert get_args(choices) == NAMES
    assert get_args(get_type_hints(emulator_command.emulator)["gateway"]) == NAMES


def test_a_gateway_generates_images(name: str, emulator: Emulator, command: RunCommand, tmp_path: Path) -> None:
    ran = command("generate", "a fox", "a wolf", "--out", "out", *options_of(name, emulator))
    assert ran.code == 0, ran.err
    assert len(image_names(tmp_path / "out")) == 2
    assert emulator.ledger.billed == 2


def test_the_private_emulator_speaks_each_dialect(name: str, command: RunCommand, tmp_path: Path) -> None:
    ran = command("generate", "a fox", "--emulator", "--gateway", name, "--out", "out")
    assert ran.code == 0, ran.err
    assert len(image_names(tmp_path / "out")) == 1
    assert "1 billed" in ran.err


def test_the_environment_names_the_gateway(
    name: str, emulator: Emulator, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONTEXT_GATEWAY", name)
    monkeypatch.setenv("KONTEXT_BASE_URL", emulator.base_url_of(name))
    ran = command("generate", "a fox", "--out", "out", *hosts_of(name, emulator))
    assert ran.code == 0, ran.err
    assert emulator.ledger.billed == 1


def test_the_address_of_the_environment_is_refused_for_another_gateway(serve: Serve, command: RunCommand) -> None:
    emulator = serve()  # the environment has its address
    ran = command("generate", "a fox", "--out", "out", "--gateway", "bfl")
    assert ran.code == 2
    assert "--base-url" in ran.err
    assert not emulator.requests


def test_a_bulk_run_is_resumed(name: str, serve: Serve, command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a fox\na wolf\na hare\n")
    emulator = serve(service_time=1.0)
    arguments = ("bulk", "prompts.txt", "--out", "out", *options_of(name, emulator))
    assert command(*arguments, "--timeout", "0.1").code == 1
    assert emulator.ledger.billed == 3
    ran = command(*arguments)
    assert ran.code == 0, ran.err
    assert len(image_names(tmp_path / "out")) == 3
    assert emulator.ledger.billed == 3


def test_the_key_of_bfl_comes_from_its_own_variable(
    serve: Serve, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = serve()
    monkeypatch.setenv("KONTEXT_API_KEY", "wrong")
    monkeypatch.setenv("BFL_API_KEY", "emulator-key")
    assert command("generate", "a fox", "--out", "out", *options_of("bfl", emulator)).code == 0
    assert command("generate", "a fox", "--out", "out", *options_of("vtrix", emulator)).code == 3
    monkeypatch.delenv("KONTEXT_API_KEY")
    monkeypatch.delenv("BFL_API_KEY")
    assert "set BFL_API_KEY or KONTEXT_API_KEY" in command("generate", "a fox", "--gateway", "bfl").err


def test_an_option_of_another_gateway_is_refused(serve: Serve, command: RunCommand) -> None:
    emulator = serve()
    ran = command("generate", "a fox", "--out", "out", "--trusted-host", "poll.example")
    assert ran.code == 2
    assert "trusted_hosts" in ran.err
    assert command("generate", "a fox", "--gateway", "flux").code == 2
    ran = command("generate", "a fox", "--emulator", "--gateway", "bfl", "--trusted-host", "poll.example")
    assert ran.code == 2
    assert not emulator.requests


def test_webp_is_for_bfl_only(serve: Serve, command: RunCommand) -> None:
    emulator = serve()
    webp = ("generate", "a fox", "--output-format", "webp", "--out", "out")
    assert command(*webp).code == 1
    assert not emulator.requests
    assert command(*webp, *options_of("bfl", emulator)).lines[0].endswith(".webp")


def test_a_reference_names_the_gateway_of_the_session(serve: Serve, command: RunCommand) -> None:
    emulator = serve()
    ran = command("status", str(Reference("task-1", "vtrix")), *options_of("bfl", emulator))
    assert ran.code == 2
    assert "of the gateway bfl" in ran.err
    assert not emulator.requests


def test_a_task_is_fetched_by_the_command_that_an_earlier_one_printed(
    name: str, serve: Serve, command: RunCommand, tmp_path: Path
) -> None:
    emulator = serve(service_time=2.5)
    ran = command("generate", "a fox", "--timeout", "0.2", "--out", "out", *options_of(name, emulator))
    assert ran.code == 1
    [line] = [line for line in ran.messages if line.startswith("kontext-async fetch ")]
    arguments = shlex.split(line)[1:]
    assert arguments[1].startswith(f"{name}:")
    ran = command("status", arguments[1], "--json", *options_of(name, emulator))
    assert ran.objects[0]["task_id"] == emulator.ledger.task_ids[0]
    assert command(*arguments).code == 0
    assert len(image_names(tmp_path / "out")) == 1
    assert emulator.ledger.billed == 1


def test_the_error_of_a_task_has_its_reference_for_machines(name: str, emulator: Emulator, command: RunCommand) -> None:
    emulator.faults.script("create", ["task-fails"])
    ran = command("generate", "a fox", "--json", "--out", "out", *options_of(name, emulator))
    assert ran.objects[0]["error"]["reference"].startswith(f"{name}:")


def test_the_balance_is_printed(name: str, serve: Serve, command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = serve(balance="1.50")
    ran = command("balance", *options_of(name, emulator))
    if name == "fireworks":
        assert ran.code == 2
        return
    assert (ran.code, Decimal(ran.lines[0].removesuffix(" USD"))) == (0, Decimal("1.5")), ran.err
    [found] = command("balance", "--json", *options_of(name, emulator)).objects
    assert (Decimal(found["balance"]), found["currency"]) == (Decimal("1.5"), "USD")
    monkeypatch.setenv("KONTEXT_API_KEY", "wrong")
    monkeypatch.delenv("BFL_API_KEY", raising=False)
    assert command("balance", *options_of(name, emulator)).code == 3
