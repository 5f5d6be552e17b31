from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, strategies as st

from kontext_async import ConfigurationError, StoreSettings, store
from kontext_async.store import sql
from kontext_async.store.sql.urls import PostgresAddress, SQLiteAddress, read_url
from kontext_async.store.urls import store_from_url

HERE = Path.cwd()
PASSWORD = "s3cr@t:/?#word"
ESCAPED = "s3cr%40t%3A%2F%3F%23word"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("paid.db", HERE / "paid.db"),
        (Path("/data/paid.db"), Path("/data/paid.db")),
        ("/data/a file?.db", Path("/data/a file?.db")),
        ("sqlite:///paid.db", HERE / "paid.db"),
        ("sqlite:////data/paid.db", Path("/data/paid.db")),
        ("sqlite+aiosqlite:////data/paid.db", Path("/data/paid.db")),
        ("SQLite:////data/paid.db", Path("/data/paid.db")),
    ],
)
def test_a_path_or_an_sqlite_url_leads_to_a_file(url: str | Path, path: Path) -> None:
    assert read_url(url) == SQLiteAddress(path=path)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (f"postgresql://ada:{ESCAPED}@db.example:5433/paid", "postgresql://db.example:5433/paid"),
        (f"postgres://ada:{ESCAPED}@db.example/paid?sslmode=require", "postgresql://db.example/paid"),
        (f"postgresql://db.example/paid?user=ada&password={ESCAPED}", "postgresql://db.example/paid"),
        (f"postgresql+asyncpg://ada:{ESCAPED}@db.example/paid", "postgresql://db.example/paid"),
        (
            f"postgresql://ada:{ESCAPED}@one.example:1,two.example:2/paid",
            "postgresql://one.example:1,two.example:2/paid",
        ),
        ("postgresql:///paid?host=/run/postgresql", "postgresql:///run/postgresql/paid"),
        ("postgresql://ada@%2Frun%2Fpostgresql/paid", "postgresql:///run/postgresql/paid"),
        ("postgresql://ada@[::1]:5433/paid", "postgresql://::1:5433/paid"),
        ("postgresql:///?service=paid", "postgresql:///?service=paid"),
        ("postgresql://", "postgresql:///"),
    ],
)
def test_a_store_in_postgresql_is_named_without_user_and_password(url: str, name: str) -> None:
    address = read_url(url)
    assert isinstance(address, PostgresAddress)
    assert address.name == name
    assert "s3cr" not in repr(address)
    assert store_from_url(url, StoreSettings()).name == name


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "it must be a path or a URL"),
        (b"paid.db", "it must be a path or a URL"),
        ("paid\0.db", "it must be a path or a URL"),
        ("mysql://ada:s3cret@host/paid", "must begin with sqlite:/// or postgresql://"),
        ("host=db password=s3cret dbname=paid", "write a PostgreSQL address as a URL"),
        ("sqlite://", "three or four /"),
        ("sqlite:paid.db", "three or four /"),
        ("sqlite://host/paid.db", "three or four /"),
        ("sqlite:///", "in memory is lost"),
        ("sqlite:///:memory:", "in memory is lost"),
        ("sqlite:///file:paid.db", "in memory is lost"),
        ("sqlite:///paid.db?mode=ro", "takes no parameters"),
        ("postgresql:paid", "postgresql://USER@HOST"),
        ("postgresql://ada:s3cret@host:many/paid", "a number from 1 to 65535"),
        ("postgresql://ada:s3cret@host:0/paid", "a number from 1 to 65535"),
        ("postgresql://ada:s3cret@host:99999/paid", "a number from 1 to 65535"),
        ("postgresql://ada:s3cret@host:99999999999999/paid", "a number from 1 to 65535"),
        ("postgresql://ada:s3cret@host/paid?tls=true", "parameters must be those of libpq"),
        ("postgresql://ada:s3c@ret@host/paid", "an @ where none belongs"),
        ("postgresql://ada:s3c/ret@host/paid", "an @ where none belongs"),
        ("postgresql://ada:s3c?ret@host/paid", "an @ where none belongs"),
        ("postgresql://ada:s3c:ret/x@host/paid", "an @ where none belongs"),
        ("postgresql://ada:s3cret%@host/paid", "a % that begins no escape"),
        ("postgresql://ada:s3cret@ho%20st/paid", "the host of its URL"),
    ],
)
def test_a_bad_url_is_refused_by_its_rule_and_nothing_of_it_is_shown(url: str, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=rule) as caught:
        read_url(url)
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    assert "s3c" not in shown
    assert "ret" not in shown.replace("secret", "")


@given(st.text(max_size=20), st.text(max_size=20))
def test_every_text_is_a_path_an_address_or_a_configuration_error(head: str, tail: str) -> None:
    for url in (head, f"sqlite:{head}", f"postgresql://{head}:{tail}@{tail}", f"postgresql://{head}/{tail}?{tail}"):
        try:
            address = read_url(url)
        except ConfigurationError:
            continue
        assert isinstance(address, PostgresAddress | SQLiteAddress)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_an_escaped_password_reaches_libpq_as_it_is(password: str) -> None:
    from urllib.parse import quote

    from psycopg.conninfo import conninfo_to_dict

    address = read_url(f"postgresql://ada:{quote(password, safe='')}@db.example:5433/paid")
    assert isinstance(address, PostgresAddress)
    assert conninfo_to_dict(address.conninfo)["password"] == password
    assert address.name == "postgresql://db.example:5433/paid"


@pytest.mark.parametrize(
    ("package", "url", "command"),
    [
        ("sqlalchemy", "paid.db", "pip install 'kontext_async[store]'"),
        ("psycopg", "postgresql://host/paid", "pip install 'kontext_async[postgres]'"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, package: str, url: str, command: str
) -> None:
    monkeypatch.setattr(sys, "meta_path", [_Missing(package), *sys.meta_path])
    monkeypatch.setattr(store, "sql", sql)  # an import sets it, too
    with patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.startswith((package, "kontext_async.store.sql"))]:
            del sys.modules[name]
        with pytest.raises(ConfigurationError) as caught:
            store_from_url(url, StoreSettings())
    assert command in str(caught.value)
    assert sys.modules["kontext_async.store.sql"] is sql


class _Missing:
    """Makes a package one that is not installed."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
