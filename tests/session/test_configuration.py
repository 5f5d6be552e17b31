"""The arguments of `KontextSession`: the environment, the settings and their groups, the user's own HTTP session."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from kontext_async import (
    ConfigurationError,
    KontextSession,
    Limits,
    Network,
    Outages,
    Polling,
    Retries,
    SessionClosed,
    Settings,
    Timeouts,
)
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

GROUPS: dict[str, object] = {
    "limits": Limits(max_in_flight=3),
    "timeouts": Timeouts(wait=7.0),
    "polling": Polling(interval=0.5),
    "retries": Retries(attempts=2),
    "outages": Outages(wait=9.0),
    "network": Network(proxy=None),
}


async def test_key_and_address_come_from_the_environment(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KONTEXT_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="KONTEXT_API_KEY"):
        KontextSession()
    monkeypatch.setenv("KONTEXT_API_KEY", emulator.api_key or "")
    monkeypatch.setenv("KONTEXT_BASE_URL", emulator.base_url)
    async with KontextSession(settings=FAST) as session:
        assert (await session.generate("a fox")).images
        assert str(emulator.api_key) not in repr(session)


class TestSettings:
    def test_the_session_has_the_given_settings(self) -> None:
        assert KontextSession("key").settings == Settings()
        assert KontextSession("key", settings=FAST).settings == FAST

    @pytest.mark.parametrize("name", GROUPS)
    def test_a_group_of_settings_replaces_the_default_group(self, name: str) -> None:
        options: dict[str, Any] = {name: GROUPS[name]}
        assert KontextSession("key", **options).settings == Settings(**options)

    @pytest.mark.parametrize("name", GROUPS)
    def test_a_group_of_settings_replaces_the_one_in_settings_and_no_other(self, name: str) -> None:
        options: dict[str, Any] = {name: GROUPS[name]}
        settings = KontextSession("key", settings=FAST, **options).settings
        assert getattr(settings, name) == GROUPS[name] != getattr(FAST, name)
        for other in GROUPS.keys() - {name}:
            assert getattr(settings, other) == getattr(FAST, other)

    def test_all_groups_of_settings_together_replace_settings(self) -> None:
        options: dict[str, Any] = GROUPS
        assert KontextSession("key", settings=FAST, **options).settings == Settings(**options)

    @pytest.mark.parametrize("name", GROUPS)
    @pytest.mark.parametrize("wrong", [24, "24", {"max_in_flight": 24}, Settings(), Limits], ids=repr)
    def test_a_group_of_settings_of_a_wrong_type_is_refused(self, name: str, wrong: object) -> None:
        options: dict[str, Any] = {name: wrong}
        with pytest.raises(ConfigurationError, match=rf"Settings\.{name}"):
            KontextSession("key", **options)

    async def test_the_session_obeys_its_limits(self, emulator: Emulator) -> None:
        async with KontextSession(
            emulator.api_key,
            base_url=emulator.base_url,
            settings=FAST,
            limits=Limits(max_in_flight=2, polls_per_second=2000.0),
        ) as session:
            assert session.statistics().limit == 2
            assert all(outcome.ok for outcome in await session.generate_all(f"fox {n}" for n in range(6)))


class TestUsersHttpSession:
    async def test_an_http_session_of_the_user_is_used_and_not_closed(self, emulator: Emulator) -> None:
        async with aiohttp.ClientSession(headers={"X-Mine": "1"}) as http:
            async with KontextSession(
                emulator.api_key, base_url=emulator.base_url, settings=FAST, http=http
            ) as session:
                fox = await session.generate("a fox")
                assert await session.read(fox.images[0])
            assert not http.closed
        assert all(record.headers.get("X-Mine") == "1" for record in emulator.requests)

    async def test_a_closed_http_session_is_refused_at_start(self, emulator: Emulator) -> None:
        http = aiohttp.ClientSession()
        await http.close()
        session = KontextSession(emulator.api_key, base_url=emulator.base_url, http=http)
        with pytest.raises(ConfigurationError, match="closed"):
            await session.start()

    async def test_an_http_session_with_its_own_auth_is_refused_at_start(self, emulator: Emulator) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer versions of aiohttp deprecate it
            http = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
        async with http:
            session = KontextSession(emulator.api_key, base_url=emulator.base_url, http=http)
            with pytest.raises(ConfigurationError, match="auth"):
                await session.start()

    async def test_an_http_session_that_is_closed_too_early_fails_the_requests(self, emulator: Emulator) -> None:
        http = aiohttp.ClientSession()
        async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST, http=http) as session:
            await http.close()
            with pytest.raises(SessionClosed, match="pool"):
                await session.generate("a fox")
