"""The gateways by name."""

from __future__ import annotations

from typing import Any

import pytest

from kontext_async.errors import ConfigurationError
from kontext_async.gateways import DEFAULT_GATEWAY, GATEWAYS, GatewayOptions, find_gateway, make_gateway


def test_the_names_are_the_documented_ones() -> None:
    assert list(GATEWAYS) == ["vtrix", "vtrix-queue", "bfl", "fireworks"]
    assert DEFAULT_GATEWAY == "vtrix"
    assert all(find_gateway(name).name == name for name in GATEWAYS)


@pytest.mark.parametrize("name", ["", "BFL", "fal", None, 7, ["bfl"]])
def test_an_unknown_name_is_refused_with_the_names_that_exist(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="vtrix, vtrix-queue, bfl, fireworks"):
        find_gateway(name)


def test_a_gateway_has_a_base_url_of_its_own() -> None:
    bases = {name: str(make_gateway(name, "key").base) for name in GATEWAYS}
    assert bases["bfl"] == "https://api.bfl.ai/"
    assert bases["vtrix"] == bases["vtrix-queue"] == "https://cloud.vtrix.ai/"
    assert str(make_gateway("bfl", "key", "https://api.eu.bfl.ai").base) == "https://api.eu.bfl.ai/"


def test_only_its_own_variable_has_the_key_of_a_gateway() -> None:
    assert {name: gateway.key_variables for name, gateway in GATEWAYS.items()} == {
        "vtrix": (),
        "vtrix-queue": (),
        "bfl": ("BFL_API_KEY",),
        "fireworks": ("FIREWORKS_API_KEY",),
    }


@pytest.mark.parametrize("base", ["", "x", "ftp://a.example", "https://"])
def test_an_unusable_base_url_is_a_configuration_error(base: str) -> None:
    for name in GATEWAYS:
        with pytest.raises(ConfigurationError):
            GATEWAYS[name](base, "key", GatewayOptions())
