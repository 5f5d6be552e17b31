"""Durable runs against an emulator in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bulk_support import Folder, RunRequests

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.emulator import Emulator


@pytest.fixture
def emulator_options() -> dict[str, Any]:
    return {"service_time": 0.0, "pixels": 256}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


@pytest.fixture
def run(emulator: Emulator, folder: Folder) -> RunRequests:
    """Run requests in the folder."""
    return RunRequests(emulator, folder)


@pytest.fixture(autouse=True)
def _spool_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the spools of the tests out of the user's folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
