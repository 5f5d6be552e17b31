"""`emulator`: its options, its output, and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from cli_support import CLI, has_printed

from kontext_async.cli.commands.emulator import FAULT_KINDS, BehaviorOptions
from kontext_async.emulator import Emulator, FaultKind

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import RunCommand, SignalWhen


def test_help_lists_every_kind_of_fault() -> None:
    assert FAULT_KINDS.split(", ") == list(FaultKind)


def test_defaults_are_those_of_the_emulator() -> None:
    ours, theirs = BehaviorOptions(), Emulator()
    assert (ours.pixels, ours.url_lifetime, ours.seed) == (theirs.pixels, theirs.url_lifetime, theirs.seed)
    assert ours.service_time == "lognormal:0.3,0.5"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_emulator_process_serves_another_process_until_a_signal(number: int, tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: S603
        [*CLI, "emulator", "--service-time", "0", "--key", "k", "--fault", "odd-cost=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        address = server.stdout.readline().strip()
        environment = {**os.environ, "KONTEXT_BASE_URL": address, "KONTEXT_API_KEY": "k"}
        ran = subprocess.run(  # noqa: S603
            [*CLI, "generate", "a fox", "--out", str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, len(ran.stdout.splitlines())) == (0, 1), ran.stderr
        server.send_signal(number)
        _, errors = server.communicate(timeout=20)
    assert server.returncode == 0
    first, last = errors.splitlines()
    assert f"export KONTEXT_BASE_URL={address} KONTEXT_API_KEY=k" in first
    assert last == "ledger: 1 accepted, 1 billed, 0.04 USD"


def test_port_in_use_is_reported(command: RunCommand) -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        port = occupied.getsockname()[1]
        ran = command("emulator", "--port", port)
    assert ran.code == 2
    assert ran.err.startswith(f"error: the emulator cannot listen on 127.0.0.1:{port}: ")


@pytest.mark.parametrize("name", ["vtrix", "bfl", "fireworks"])
def test_the_emulator_prints_the_address_of_a_gateway(name: str, command: RunCommand, signal_when: SignalWhen) -> None:
    signal_when(signal.SIGTERM, lambda: has_printed("http://"))
    ran = command("emulator", "--gateway", name)
    assert f"KONTEXT_BASE_URL={ran.lines[0]} " in ran.err
    assert (f"KONTEXT_GATEWAY={name} " in ran.err) is (name != "vtrix")
    assert ("--trusted-host localhost:" in ran.err) is (name == "bfl")


def test_quiet_emulator_prints_only_its_address(command: RunCommand, signal_when: SignalWhen) -> None:
    signal_when(signal.SIGTERM, lambda: has_printed("http://"))
    ran = command("emulator", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].startswith("http://127.0.0.1:")
