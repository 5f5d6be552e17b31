"""aiohttp's errors in our words. A text may echo a request's head, so it is cleaned; the objects are dropped."""

from __future__ import annotations

import os
import re
import ssl
from functools import singledispatch
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
from aiohttp.http import HttpProcessingError

from kontext_async.decisions.transport_failures import TransportFailure
from kontext_async.engine.address_guard import ForbiddenAddress
from kontext_async.redaction import clean_text, strip_query, truncate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LIBRARY_ERRORS", "ConnectionFailure", "TransportError", "chain", "translate"]

LIBRARY_ERRORS = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, UnicodeError)
"""The errors that a request can raise. UnicodeError is the resolver's, for a name that it cannot encode."""

REASON_LENGTH = 500
"""The most characters of a reason: a refused certificate with its host and why."""

CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]*@")
"""The user and the password of a URL, such as a proxy's."""

QUERIES = re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\"]*")
"""A URL with its query, which may contain a signature."""

NOT_WRITTEN = "Cannot write to closing transport"
"""aiohttp's text for a connection that was closing before anything was written to it."""

Description: TypeAlias = tuple[TransportFailure, str]

BROKEN_HANDSHAKES = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""Failures of TLS that are lost connections. The others last."""


class TransportError(Exception):
    """A request without a response. Internal: the callers turn it into an error of the tree.

    Attributes:
        kind: The kind of failure.
        handed_over: True if the last byte of the body was handed to the socket.
    """

    def __init__(self, reason: str, *, kind: TransportFailure, handed_over: bool = False) -> None:
        super().__init__(reason)
        self.kind = kind
        self.handed_over = handed_over


class ConnectionFailure(Exception):
    """The cause of a `TransportError`: the text of the library's error. Its object may hold a request's headers."""


def translate(error: Exception, *, deadline: float, secret: str, handed_over: bool) -> TransportError:
    """Return the error that stands for a library's error. Raise it outside the ``except`` block.

    Args:
        error: One of `LIBRARY_ERRORS`.
        deadline: The seconds that a request may take, for the text.
        secret: The API key, which the text must not contain.
        handed_over: True if the last byte of the body was requested for sending.
    """
    kind, reason = _describe(error, deadline)
    sent = handed_over and not any(str(each) == NOT_WRITTEN for each in chain(error))
    lost = TransportError(_clean(reason, secret), kind=kind, handed_over=sent)
    lost.__cause__ = ConnectionFailure(_clean(_summarize(error), secret))
    return lost


def _clean(text: str, secret: str) -> str:
    return truncate(clean_text(QUERIES.sub(r"\1", CREDENTIALS.sub("", text)), secret), REASON_LENGTH)


@singledispatch
def _describe(error: Exception, deadline: float) -> Description:  # noqa: ARG001 # its sisters need it
    """Return the kind of a failure, and the reason. There is one function for each class of error."""
    return TransportFailure.LOST, _summarize(error)


@_describe.register
def _(error: aiohttp.ClientConnectorCertificateError, _deadline: float) -> Description:
    text = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
    return TransportFailure.CERTIFICATE, f"the certificate of {error.host}:{error.port} was refused: {text}"


@_describe.register
def _(error: aiohttp.ClientConnectorSSLError, _deadline: float) -> Description:
    kind = TransportFailure.REFUSED if isinstance(error.os_error, BROKEN_HANDSHAKES) else TransportFailure.CERTIFICATE
    return kind, f"TLS with {error.host}:{error.port} failed: {_os_text(error.os_error)}"


@_describe.register
def _(_error: aiohttp.ServerFingerprintMismatch, _deadline: float) -> Description:
    return TransportFailure.CERTIFICATE, "the certificate has another fingerprint"


@_describe.register
def _(error: aiohttp.ClientConnectorDNSError, _deadline: float) -> Description:
    return TransportFailure.DNS, f"the name {error.host} has no address: {_os_text(error.os_error)}"


@_describe.register
def _(error: aiohttp.ClientProxyConnectionError, _deadline: float) -> Description:
    text = f"no connection to the proxy {error.host}:{error.port}: {_os_text(error.os_error)}"
    return TransportFailure.REFUSED, text


@_describe.register
def _(error: aiohttp.ClientHttpProxyError, _deadline: float) -> Description:
    return TransportFailure.REFUSED, f"the proxy made no connection: it returned HTTP {error.status} {error.message}"


@_describe.register
def _(error: aiohttp.ClientConnectorError, _deadline: float) -> Description:
    if isinstance(error.os_error, ForbiddenAddress):
        return TransportFailure.FORBIDDEN_ADDRESS, str(error.os_error)
    return TransportFailure.REFUSED, f"no connection to {error.host}:{error.port}: {_os_text(error.os_error)}"


@_describe.register
def _(error: aiohttp.InvalidURL, _deadline: float) -> Description:
    return TransportFailure.INVALID_URL, f"the URL is invalid: {strip_query(str(error.url))}"


@_describe.register
def _(_error: UnicodeError, _deadline: float) -> Description:
    return TransportFailure.INVALID_URL, "the URL's host is invalid"


@_describe.register(aiohttp.ClientResponseError)
@_describe.register(HttpProcessingError)
def _(error: aiohttp.ClientResponseError | HttpProcessingError, _deadline: float) -> Description:
    return TransportFailure.PROTOCOL, f"the response is not valid HTTP: {type(error).__name__}: {error.message}"


@_describe.register
def _(_error: aiohttp.ConnectionTimeoutError, _deadline: float) -> Description:
    return TransportFailure.TIMEOUT, "no connection within Timeouts.connect"


@_describe.register
def _(error: TimeoutError, deadline: float) -> Description:
    return TransportFailure.TIMEOUT, _summarize(error) if str(error) else f"no response within {deadline:g} s"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    following: BaseException | None = error
    seen: set[int] = set()
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _os_text(error: OSError) -> str:
    reason = getattr(error, "reason", None)  # of OpenSSL
    return error.strerror or (str(reason) if reason else str(error)) or os.strerror(error.errno or 0)


def _summarize(error: Exception) -> str:
    """Return the class and the text of an error, without what may be a request's head."""
    detail = str(error) or os.strerror(getattr(error, "errno", 0) or 0)
    return f"{type(error).__name__}: {detail}"
