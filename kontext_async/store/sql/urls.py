"""The URL of a database, read and checked. A password is shown nowhere.

SQLite: a path, ``sqlite:///relative.db``, ``sqlite:////absolute.db``. PostgreSQL: what psql takes
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS), so that ``sslmode``, ``service``,
several hosts, ``PGPASSFILE`` and ``PGPASSWORD`` mean here what they mean there.

A character of a password that was not escaped moves the borders of a URL: a piece of the password then is taken for a
host, a port, a database or a parameter. So errors show no piece of a URL.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from attrs import field, frozen

from kontext_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PostgresAddress", "SQLiteAddress", "read_url"]

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9]*)(\+[A-Za-z0-9_]+)?:")
POSTGRES = frozenset({"postgresql", "postgres"})
CONNINFO = re.compile(r"\s*(host|hostaddr|port|dbname|user|password|service|sslmode)\s*=")
HOST = re.compile(r"[\w.:%\-\[\]]*|/[^@]*")
ESCAPE_HINT = "write characters of the user or password such as @ : / ? # % as %40 %3A %2F %3F %23 %25"


@frozen(kw_only=True)
class SQLiteAddress:
    """The place of an SQLite file.

    Attributes:
        path: The absolute path.
    """

    path: Path


@frozen(kw_only=True)
class PostgresAddress:
    """The place of a PostgreSQL database.

    Attributes:
        name: The URL without user and password.
        conninfo: The URL as libpq takes it.
        hosts: The number of hosts.
    """

    name: str
    conninfo: str = field(repr=False)
    hosts: int = 1


def read_url(url: str | os.PathLike[str]) -> SQLiteAddress | PostgresAddress:
    """Read the URL of a store.

    Raises:
        ConfigurationError: It is not the URL of a store. The text says which rule it breaks.
    """
    text: object = os.fspath(url)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigurationError("store: it must be a path or a URL, as text")
    scheme = SCHEME.match(text)
    if not isinstance(url, str) or scheme is None or len(scheme[1]) == 1:  # a drive of Windows is no scheme
        if CONNINFO.match(text):
            raise ConfigurationError("store: write a PostgreSQL address as a URL: postgresql://USER@HOST/DATABASE")
        return SQLiteAddress(path=Path(text).absolute())
    if scheme[1].lower() == "sqlite":
        return SQLiteAddress(path=_read_path(text))
    if scheme[1].lower() in POSTGRES:
        return _read_postgres(text[scheme.end() :])
    raise ConfigurationError(
        "store: its URL must begin with sqlite:/// or postgresql://; a file may be given as a path"
    )


def _read_path(text: str) -> Path:
    rest = text.partition(":")[2]
    path, _, query = rest.partition("?")
    if query:
        raise ConfigurationError("store: the URL of an SQLite file takes no parameters; give the path alone")
    if not path.startswith("///"):
        raise ConfigurationError(
            "store: the URL of an SQLite file is sqlite:///relative.db or sqlite:////absolute.db, with three or four /"
        )
    path = path[3:]
    if path in {"", ":memory:"} or path.startswith("file:"):
        raise ConfigurationError(
            "store: an SQLite database in memory is lost with the process; give the path of a file "
            "(tests have kontext_async.testing.MemoryStore)"
        )
    return Path(path).absolute()


def _read_postgres(rest: str) -> PostgresAddress:
    try:
        from psycopg import Error  # noqa: PLC0415 # an optional dependency
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 # as above
    except ImportError:
        raise ConfigurationError("store: PostgreSQL needs a driver: pip install 'kontext_async[postgres]'") from None
    if not rest.startswith("//"):
        raise ConfigurationError("store: the URL of a PostgreSQL database is postgresql://USER@HOST:PORT/DATABASE")
    _check_borders(rest[2:])
    conninfo = f"postgresql:{rest}"
    try:
        parts = conninfo_to_dict(conninfo)
    except Error:
        raise ConfigurationError(
            "store: the URL is not one that PostgreSQL takes: its parameters must be those of libpq, such as "
            f"sslmode=require, and {ESCAPE_HINT}"
        ) from None
    _check_parts(parts)
    hosts = str(parts.get("host") or parts.get("hostaddr") or "").split(",")
    return PostgresAddress(name=_name_of(parts), conninfo=conninfo, hosts=len(hosts))


def _check_borders(rest: str) -> None:
    """Refuse a URL in which a password may have moved the borders."""
    authority, path = re.fullmatch(r"([^/?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr] # it matches any text
    if authority.count("@") > 1 or "@" in unquote(path.partition("?")[0]) or "@" in path:
        raise ConfigurationError(f"store: the URL has an @ where none belongs: {ESCAPE_HINT}")
    if "%" in authority and re.search(r"%(?![0-9A-Fa-f]{2})", authority):
        raise ConfigurationError(f"store: the URL has a % that begins no escape: {ESCAPE_HINT}")


def _check_parts(parts: Mapping[str, Any]) -> None:
    for port in str(parts.get("port") or "").split(","):
        if port and not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535):  # noqa: PLR2004 # of TCP
            raise ConfigurationError(f"store: the port of its URL must be a number from 1 to 65535; {ESCAPE_HINT}")
    for host in str(parts.get("host") or "").split(","):
        if not HOST.fullmatch(host):
            raise ConfigurationError(f"store: the host of its URL must be a name or an address; {ESCAPE_HINT}")


def _name_of(parts: Mapping[str, Any]) -> str:
    """Return a URL for people: hosts, ports, database and service, without user, password and other parameters."""
    hosts = str(parts.get("host") or parts.get("hostaddr") or "").split(",")
    ports = str(parts.get("port") or "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    places = (f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False))
    name = f"postgresql://{','.join(places)}/{parts.get('dbname') or ''}"
    return f"{name}?service={parts['service']}" if parts.get("service") else name
