"""Settings as values, and the environment variables for the API key and the base URL."""

from __future__ import annotations

import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from kontext_async.errors import ConfigurationError
from kontext_async.settings import (
    Limits,
    Network,
    Outages,
    Polling,
    Retries,
    Settings,
    StoreSettings,
    Timeouts,
    find_api_key,
    find_base_url,
    find_gateway_name,
    find_proxy_variables,
    find_spool_folder,
)

DEFAULT = "https://gateway.example"

COUNTS: list[tuple[type[Any], str]] = [
    (Limits, "max_in_flight"),
    (Limits, "max_connections"),
    (Limits, "max_polls_in_flight"),
    (Limits, "max_uploads"),
    (Limits, "max_image_bytes"),
    (Limits, "max_download_bytes"),
    (Retries, "attempts"),
    (Outages, "uncertain_limit"),
]
OPTIONAL_COUNTS: list[tuple[type[Any], str]] = [(Limits, "max_queued"), (Limits, "max_queued_per_share")]
POSITIVE: list[tuple[type[Any], str]] = [
    (Limits, "polls_per_second"),
    *((Timeouts, name) for name in ("connect", "submit", "status", "download", "wait", "cancel")),
    *((Polling, name) for name in ("interval", "min_interval", "max_interval", "poll_cost")),
    *((Retries, name) for name in ("backoff_initial", "backoff_max", "failure_budget")),
    *((Outages, name) for name in ("probe_initial", "probe_max")),
    *((StoreSettings, name) for name in ("lease", "beat", "connect", "step")),
]
NOT_NEGATIVE: list[tuple[type[Any], str]] = [
    (Polling, "initial_delay"),
    (Retries, "not_found_grace"),
    (Retries, "max_retry_after"),
    (Outages, "wait"),
]
FLAGS: list[tuple[type[Any], str]] = [(Retries, "resend_uncertain"), (Timeouts, "cancel_on_timeout")]
GROUPS: list[tuple[type[Any], str]] = [
    (Settings, "limits"),
    (Settings, "timeouts"),
    (Settings, "polling"),
    (Settings, "retries"),
    (Settings, "outages"),
    (Settings, "network"),
    (Settings, "store"),
]

NOT_NUMBERS: list[Any] = [
    True,
    False,
    "1",
    "",
    None,
    [],
    float("nan"),
    float("inf"),
    float("-inf"),
    1j,
    object(),
    10**400,
]
NOT_GROUPS: list[Any] = [None, {}, Settings, 3]
NOT_COUNTS: list[Any] = [0, -1, 1.0, True, "1"]
CASES: list[tuple[type[Any], str, Any, str]] = [
    *((kind, name, value, "integer of at least 1") for kind, name in COUNTS for value in (*NOT_COUNTS, None)),
    *((kind, name, value, "integer of at least 1") for kind, name in OPTIONAL_COUNTS for value in NOT_COUNTS),
    *((kind, name, value, "above 0") for kind, name in POSITIVE for value in (0, 0.0, -0.5, *NOT_NUMBERS)),
    *((kind, name, value, "at least 0") for kind, name in NOT_NEGATIVE for value in (-1, -1e-9, *NOT_NUMBERS)),
    *((kind, name, value, "True or False") for kind, name in FLAGS for value in (0, 1, "yes", None)),
    *((kind, name, value, "it must be a ") for kind, name in GROUPS for value in NOT_GROUPS),
]


KINDS = (Limits, Timeouts, Polling, Retries, Outages, StoreSettings, Settings)


def test_these_cases_cover_every_field() -> None:
    here = {
        (kind, name)
        for group in (COUNTS, OPTIONAL_COUNTS, POSITIVE, NOT_NEGATIVE, FLAGS, GROUPS)
        for kind, name in group
    }
    there = {(kind, a.name) for kind in KINDS for a in attrs.fields(kind)}
    assert here == there - {(StoreSettings, "spool"), (Limits, "max_in_flight_by_model")}


@pytest.mark.parametrize("value", [7, b"x", []])
def test_a_spool_that_is_no_path_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"StoreSettings\.spool: .* it must be a path"):
        StoreSettings(spool=value)


def test_a_beat_is_at_most_half_of_the_lease() -> None:
    with pytest.raises(ConfigurationError, match=r"StoreSettings\.beat"):
        StoreSettings(lease=5, beat=3)


def test_the_spool_is_in_the_folder_for_the_state_of_programs() -> None:
    assert find_spool_folder("here", {}) == "here"
    assert find_spool_folder(None, {"XDG_STATE_HOME": "/state"}) == "/state/kontext_async"
    assert find_spool_folder(None, {}).endswith(".local/state/kontext_async")


@pytest.mark.parametrize(("kind", "name", "value", "rule"), CASES)
def test_an_invalid_value_is_refused_with_group_field_and_rule(
    kind: type[Any], name: str, value: object, rule: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(**{name: value})
    assert str(caught.value).startswith(f"{kind.__name__}.{name}: ")
    assert rule in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("kind", "name"), NOT_NEGATIVE)
def test_settings_that_may_be_zero_accept_zero(kind: type[Any], name: str) -> None:
    assert getattr(kind(**{name: 0}), name) == 0


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert attrs.asdict(settings.limits) == {
        "max_in_flight": 24,
        "max_in_flight_by_model": {},
        "max_connections": 100,
        "max_polls_in_flight": 32,
        "polls_per_second": 60.0,
        "max_uploads": 8,
        "max_image_bytes": 20 * 1024 * 1024,
        "max_download_bytes": 64 * 1024 * 1024,
        "max_queued": None,
        "max_queued_per_share": None,
    }
    assert attrs.asdict(settings.timeouts) == {
        "connect": 10,
        "submit": 120,
        "status": 30,
        "download": 300,
        "wait": 600,
        "cancel": 10,
        "cancel_on_timeout": False,
    }
    assert attrs.asdict(settings.polling) == {
        "initial_delay": 1.0,
        "interval": 1.0,
        "min_interval": 0.25,
        "max_interval": 15.0,
        "poll_cost": 0.1,
    }
    assert attrs.asdict(settings.retries) == {
        "attempts": 6,
        "backoff_initial": 0.5,
        "backoff_max": 30.0,
        "failure_budget": 300.0,
        "not_found_grace": 10.0,
        "max_retry_after": 120.0,
        "resend_uncertain": False,
    }
    assert attrs.asdict(settings.outages) == {
        "uncertain_limit": 5,
        "wait": 30.0,
        "probe_initial": 1.0,
        "probe_max": 60.0,
    }
    assert attrs.asdict(settings.network) == {"proxy": "environment", "allow": ()}


@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        (Limits, {"max_polls_in_flight": 100}, "Limits.max_polls_in_flight"),
        (Limits, {"max_connections": 32}, "Limits.max_polls_in_flight"),
        (Polling, {"min_interval": 16.0}, "Polling.min_interval"),
        (Retries, {"backoff_initial": 31.0}, "Retries.backoff_initial"),
        (Outages, {"probe_initial": 61.0}, "Outages.probe_initial"),
    ],
)
def test_contradictory_settings_are_refused(kind: type[Any], fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        kind(**fields)


def test_a_lower_bound_may_equal_the_upper_one() -> None:
    assert Limits(max_polls_in_flight=99).max_polls_in_flight == 99
    assert Polling(min_interval=15.0).min_interval == 15.0
    assert Retries(backoff_initial=30.0).backoff_initial == 30.0


def test_settings_are_frozen_hashable_comparable_and_picklable() -> None:
    settings = Settings(limits=Limits(max_in_flight=3))
    assert settings == Settings(limits=Limits(max_in_flight=3))
    assert hash(settings) == hash(Settings(limits=Limits(max_in_flight=3)))
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 # pickled on this line
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.limits.max_in_flight = 4  # type: ignore[misc] # the test


def test_evolved_settings_are_validated() -> None:
    with pytest.raises(ConfigurationError, match=r"Limits\.max_in_flight"):
        attrs.evolve(Limits(), max_in_flight=0)


def test_a_given_api_key_takes_precedence_over_the_environment() -> None:
    assert find_api_key("given", {"KONTEXT_API_KEY": "found"}) == "given"
    assert find_api_key(None, {"KONTEXT_API_KEY": "found"}) == "found"


def test_the_key_of_the_gateways_own_variable_comes_before_the_common_one() -> None:
    both = {"KONTEXT_API_KEY": "common", "BFL_API_KEY": "own"}
    assert find_api_key(None, both, variables=("BFL_API_KEY",)) == "own"
    assert find_api_key("given", both, variables=("BFL_API_KEY",)) == "given"
    assert find_api_key(None, {**both, "BFL_API_KEY": " "}, variables=("BFL_API_KEY",)) == "common"
    assert find_api_key(None, both) == "common"
    with pytest.raises(ConfigurationError, match="set BFL_API_KEY or KONTEXT_API_KEY"):
        find_api_key(None, {}, variables=("BFL_API_KEY",))


def test_the_gateway_is_the_given_one_or_that_of_the_environment_or_the_default() -> None:
    assert find_gateway_name("bfl", "vtrix", {"KONTEXT_GATEWAY": "fireworks"}) == "bfl"
    assert find_gateway_name(None, "vtrix", {"KONTEXT_GATEWAY": " fireworks\n"}) == "fireworks"
    assert find_gateway_name(None, "vtrix", {"KONTEXT_GATEWAY": ""}) == "vtrix"


def test_an_api_key_is_stripped_of_surrounding_blanks() -> None:
    assert find_api_key(" key\n", {}) == "key"
    assert find_api_key(None, {"KONTEXT_API_KEY": "key\r\n"}) == "key"


@pytest.mark.parametrize("given", [None, "", " \n"])
def test_the_error_for_a_missing_api_key_names_the_variable(given: str | None) -> None:
    with pytest.raises(ConfigurationError, match="KONTEXT_API_KEY"):
        find_api_key(given, {})


@pytest.mark.parametrize("given", ["sécret", "sec ret", "sec\nret", "sec\x00ret", "sec\x7fret", b"secret", 7])
def test_an_api_key_that_a_header_cannot_carry_is_refused_and_not_shown(given: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_api_key(given, {})
    assert "ret" not in str(caught.value)


@given(st.text(min_size=1))
def test_any_api_key_is_refused_or_valid_in_a_header(given: str) -> None:
    try:
        key = find_api_key(given, {})
    except ConfigurationError:
        return
    assert key == given.strip()
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key


def find_own_base_url(given: Any, environment: dict[str, str] | None = None) -> str:
    return find_base_url(given, DEFAULT, environment, gateway="vtrix", owner="vtrix")


def test_the_base_url_is_the_given_one_or_from_the_environment_or_the_default() -> None:
    assert find_own_base_url("https://given", {"KONTEXT_BASE_URL": "https://found"}) == "https://given"
    assert find_own_base_url(None, {"KONTEXT_BASE_URL": "https://found"}) == "https://found"
    assert find_own_base_url(None, {"KONTEXT_BASE_URL": ""}) == DEFAULT
    assert find_own_base_url(None, {}) == DEFAULT


def test_the_base_url_of_the_environment_belongs_to_one_gateway() -> None:
    found = {"KONTEXT_BASE_URL": "https://found"}
    assert find_base_url(None, DEFAULT, found, gateway="bfl", owner="bfl") == "https://found"
    assert find_base_url("https://given", DEFAULT, found, gateway="bfl", owner="vtrix") == "https://given"
    assert find_base_url(None, DEFAULT, {}, gateway="bfl", owner="vtrix") == DEFAULT
    with pytest.raises(ConfigurationError, match=r"belongs to the gateway 'vtrix', and not to 'bfl'.*GATEWAY=bfl"):
        find_base_url(None, DEFAULT, found, gateway="bfl", owner="vtrix")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://host/", "https://host"),
        ("https://host///", "https://host"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://[::1]:8443/api/", "https://[::1]:8443/api"),
        (" https://host \n", "https://host"),
        ("HTTPS://host", "HTTPS://host"),
    ],
)
def test_a_base_url_is_stripped_of_blanks_and_trailing_slashes(given: str, expected: str) -> None:
    assert find_own_base_url(given, {}) == expected


@pytest.mark.parametrize(
    "given",
    [
        "",
        "host",
        "//host",
        "ftp://host",
        "https://",
        "https://:443",
        "https://host:0",
        "https://host:99999",
        "https://host:port",
        "https://[::1",
        "https://user@host",
        "https://user:password@host",
        "https://@host",
        "https://host?key=1",
        "https://host/?",
        "https://host#part",
        "https://host/#",
        "https://ho st",
        "https://host/a\tb",
        "https://host\\@other",
        "https://a..b",
        f"https://{'a' * 64}.example",
        b"https://host",
        7,
    ],
)
def test_an_invalid_base_url_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="base URL must be"):
        find_own_base_url(given, {})


def test_the_environment_of_the_process_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONTEXT_API_KEY", "found")
    monkeypatch.setenv("KONTEXT_BASE_URL", "http://found")
    assert find_api_key(None) == "found"
    assert find_own_base_url(None) == "http://found"


def test_creating_settings_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Limits, Timeouts, Polling, Retries):
        for a in attrs.fields(kind):
            monkeypatch.setenv(f"KONTEXT_{a.name.upper()}", "0")
    assert Settings() == Settings(limits=Limits(), timeouts=Timeouts(), polling=Polling(), retries=Retries())


@pytest.mark.parametrize("proxy", [None, "environment", "http://proxy:3128", "https://user:p%40ss@proxy.example"])
def test_a_proxy_may_be_missing_or_from_the_environment_or_a_url(proxy: str | None) -> None:
    assert Network(proxy=proxy).proxy == proxy


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "proxy:3128",
        "socks5://user:secret@proxy:1080",
        "SOCKS4a://user:secret@proxy:1080",
        "ftp://user:secret@proxy",
        "http://user:secret@",
        "http://user:secret@proxy:0",
        "http://user:secret@proxy:99999",
        "http://user:sec ret@proxy",
        "http://user:secret@[::1",
        b"http://user:secret@proxy",
        7,
        True,
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_and_not_shown(proxy: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^Network\.proxy: ") as caught:
        Network(proxy=proxy)
    assert "sec" not in str(caught.value).replace("HTTPS", "")
    assert ("SOCKS" in str(caught.value)) == str(proxy).lower().startswith("socks")


def test_the_repr_of_settings_has_no_credentials_of_a_proxy() -> None:
    settings = Settings(network=Network(proxy="http://user:secret@proxy:3128"))
    assert "http://proxy:3128" in repr(settings)
    assert "secret" not in repr(settings)
    assert "user" not in repr(settings)


def test_allowed_networks_are_parsed() -> None:
    network = Network(allow=("10.0.0.0/8", "fd00::/8", "192.168.1.1"))
    assert [str(each) for each in network.allow] == ["10.0.0.0/8", "fd00::/8", "192.168.1.1/32"]
    assert Network(allow=network.allow) == network


@pytest.mark.parametrize(
    "allow", ["10.0.0.0/8", ("10.0.0.1/8",), ("localhost",), ("10.0.0.0/33",), (None,), 7, None, ("",)]
)
def test_networks_that_cannot_be_read_are_refused(allow: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^Network\.allow: "):
        Network(allow=allow)


def test_the_variables_about_proxies_are_read_in_both_cases() -> None:
    both = {"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower", "ALL_PROXY": " http://all ", "OTHER": "x"}
    assert find_proxy_variables(both) == {"https_proxy": "http://lower", "all_proxy": "http://all"}
    assert find_proxy_variables({"HTTP_PROXY": "http://upper", "http_proxy": ""}) == {}
    assert find_proxy_variables({"NO_PROXY": "*"}) == {"no_proxy": "*"}


def test_a_header_of_a_cgi_request_is_no_proxy() -> None:
    assert find_proxy_variables({"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://evil"}) == {}
