"""The names that the public modules export."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

import kontext_async
from kontext_async import emulator, events, images, testing

if TYPE_CHECKING:
    from types import ModuleType


@pytest.mark.parametrize("module", [kontext_async, emulator, events, images, testing], ids=lambda each: each.__name__)
def test_every_exported_name_exists(module: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in module.__all__:
            assert getattr(module, name) is not None
