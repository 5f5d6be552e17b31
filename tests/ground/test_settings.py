from __future__ import annotations

import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from kontext_async.errors import ConfigurationError
from kontext_async.settings import (
    DEFAULT_BASE_URL,
    Limits,
    Polling,
    Retries,
    Settings,
    Timeouts,
    api_key_from,
    base_url_from,
)

COUNTS: list[tuple[type[Any], str]] = [
    (Limits, "max_in_flight"),
    (Limits, "max_connections"),
    (Limits, "max_polls_in_flight"),
    (Limits, "max_uploads"),
    (Limits, "max_image_bytes"),
    (Limits, "max_download_bytes"),
    (Retries, "attempts"),
]
POSITIVE: list[tuple[type[Any], str]] = [
    (Limits, "polls_per_second"),
    *((Timeouts, name) for name in ("connect", "submit", "status", "download", "wait", "cancel")),
    *((Polling, name) for name in ("interval", "min_interval", "max_interval", "poll_cost")),
    *((Retries, name) for name in ("backoff_initial", "backoff_max", "failure_budget")),
]
NOT_NEGATIVE: list[tuple[type[Any], str]] = [
    (Polling, "initial_delay"),
    (Retries, "not_found_grace"),
    (Retries, "max_retry_after"),
]
FLAGS: list[tuple[type[Any], str]] = [(Retries, "resend_uncertain")]
GROUPS: list[tuple[type[Any], str]] = [
    (Settings, "limits"),
    (Settings, "timeouts"),
    (Settings, "polling"),
    (Settings, "retries"),
]

NO_NUMBERS: list[Any] = [
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
NO_GROUPS: list[Any] = [None, {}, Settings, 3]
CASES: list[tuple[type[Any], str, Any, str]] = [
    *((kind, name, value, "integer of at least 1") for kind, name in COUNTS for value in (0, -1, 1.0, True, "1", None)),
    *((kind, name, value, "above 0") for kind, name in POSITIVE for value in (0, 0.0, -0.5, *NO_NUMBERS)),
    *((kind, name, value, "at least 0") for kind, name in NOT_NEGATIVE for value in (-1, -1e-9, *NO_NUMBERS)),
    *((kind, name, value, "True or False") for kind, name in FLAGS for value in (0, 1, "yes", None)),
    *((kind, name, value, "it must be a ") for kind, name in GROUPS for value in NO_GROUPS),
]


def test_every_field_is_covered_here() -> None:
    here = {(kind, name) for group in (COUNTS, POSITIVE, NOT_NEGATIVE, FLAGS, GROUPS) for kind, name in group}
    there = {(kind, a.name) for kind in (Limits, Timeouts, Polling, Retries, Settings) for a in attrs.fields(kind)}
    assert here == there


@pytest.mark.parametrize(("kind", "name", "value", "rule"), CASES)
def test_a_bad_value_is_refused_with_group_field_and_rule(kind: type[Any], name: str, value: object, rule: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(**{name: value})
    assert str(caught.value).startswith(f"{kind.__name__}.{name}: ")
    assert rule in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("kind", "name"), NOT_NEGATIVE)
def test_zero_is_allowed_where_nothing_is_a_choice(kind: type[Any], name: str) -> None:
    assert getattr(kind(**{name: 0}), name) == 0


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = Settings()
    assert attrs.asdict(settings.limits) == {
        "max_in_flight": 24,
        "max_connections": 100,
        "max_polls_in_flight": 32,
        "polls_per_second": 30.0,
        "max_uploads": 8,
        "max_image_bytes": 20 * 1024 * 1024,
        "max_download_bytes": 64 * 1024 * 1024,
    }
    assert attrs.asdict(settings.timeouts) == {
        "connect": 10,
        "submit": 120,
        "status": 30,
        "download": 300,
        "wait": 600,
        "cancel": 10,
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


@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        (Limits, {"max_polls_in_flight": 100}, "Limits.max_polls_in_flight"),
        (Limits, {"max_connections": 32}, "Limits.max_polls_in_flight"),
        (Polling, {"min_interval": 16.0}, "Polling.min_interval"),
        (Retries, {"backoff_initial": 31.0}, "Retries.backoff_initial"),
    ],
)
def test_contradictions_are_refused(kind: type[Any], fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        kind(**fields)


def test_bounds_may_be_equal() -> None:
    assert Limits(max_polls_in_flight=99).max_polls_in_flight == 99
    assert Polling(min_interval=15.0).min_interval == 15.0
    assert Retries(backoff_initial=30.0).backoff_initial == 30.0


def test_settings_are_frozen_hashable_comparable_and_picklable() -> None:
    settings = Settings(limits=Limits(max_in_flight=3))
    assert settings == Settings(limits=Limits(max_in_flight=3))
    assert hash(settings) == hash(Settings(limits=Limits(max_in_flight=3)))
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 # made on this line
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.limits.max_in_flight = 4  # type: ignore[misc] # what is tested


def test_a_changed_copy_is_checked_too() -> None:
    with pytest.raises(ConfigurationError, match=r"Limits\.max_in_flight"):
        attrs.evolve(Limits(), max_in_flight=0)


def test_a_key_that_is_passed_goes_before_the_environment() -> None:
    assert api_key_from("given", {"KONTEXT_API_KEY": "found"}) == "given"
    assert api_key_from(None, {"KONTEXT_API_KEY": "found"}) == "found"


def test_a_key_is_taken_without_the_line_end_of_its_file() -> None:
    assert api_key_from(" key\n", {}) == "key"
    assert api_key_from(None, {"KONTEXT_API_KEY": "key\r\n"}) == "key"


@pytest.mark.parametrize("given", [None, "", " \n"])
def test_without_a_key_the_error_says_how_to_pass_one(given: str | None) -> None:
    with pytest.raises(ConfigurationError, match="KONTEXT_API_KEY"):
        api_key_from(given, {})


@pytest.mark.parametrize("given", ["sécret", "sec ret", "sec\nret", "sec\x00ret", "sec\x7fret", b"secret", 7])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(given: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        api_key_from(given, {})
    assert "ret" not in str(caught.value)


@given(st.text(min_size=1))
def test_a_key_is_either_refused_or_can_stand_in_a_header(given: str) -> None:
    try:
        key = api_key_from(given, {})
    except ConfigurationError:
        return
    assert key == given.strip()
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key


def test_a_base_url_is_the_one_passed_the_one_found_or_the_default() -> None:
    assert base_url_from("https://given", {"KONTEXT_BASE_URL": "https://found"}) == "https://given"
    assert base_url_from(None, {"KONTEXT_BASE_URL": "https://found"}) == "https://found"
    assert base_url_from(None, {"KONTEXT_BASE_URL": ""}) == DEFAULT_BASE_URL
    assert base_url_from(None, {}) == DEFAULT_BASE_URL == "https://cloud.vtrix.ai"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("https://host/", "https://host"),
        ("https://host///", "https://host"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://[::1]:8443/api/", "https://[::1]:8443/api"),
        (" https://host \n", "https://host"),
        ("HTTPS://host", "HTTPS://host"),
    ],
)
def test_a_base_url_loses_only_what_stands_around_it(given: str, taken: str) -> None:
    assert base_url_from(given, {}) == taken


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
        "https://user:word@host",
        "https://@host",
        "https://host?key=1",
        "https://host/?",
        "https://host#part",
        "https://host/#",
        "https://ho st",
        "https://host/a\tb",
        "https://host\\@other",
        b"https://host",
        7,
    ],
)
def test_what_is_no_base_url_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="base URL must be"):
        base_url_from(given, {})


def test_the_environment_is_read_when_none_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONTEXT_API_KEY", "found")
    monkeypatch.setenv("KONTEXT_BASE_URL", "http://found")
    assert api_key_from(None) == "found"
    assert base_url_from(None) == "http://found"


def test_making_settings_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Limits, Timeouts, Polling, Retries):
        for a in attrs.fields(kind):
            monkeypatch.setenv(f"KONTEXT_{a.name.upper()}", "0")
    assert Settings() == Settings(limits=Limits(), timeouts=Timeouts(), polling=Polling(), retries=Retries())
