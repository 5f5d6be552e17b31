"""Decides what a caller with a key gets, by the row of the key. Pure: a table, and the checks that come before it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from kontext_async.errors import ConfigurationError, InvalidRequest
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.store.rows import Account, Row

__all__ = ["Access", "check_key", "check_row", "decide_access"]

LONGEST_KEY = 512


class Access(enum.Enum):
    """The action that is taken for a caller."""

    SUBMIT = enum.auto()
    """Nobody has sent it: the caller's session submits it once it has a slot."""
    WAIT = enum.auto()
    """Another worker is about to send it: wait until the row changes."""
    SWEEP = enum.auto()
    """Its owner died while it was sending: the row becomes uncertain, and is looked at again."""
    FOLLOW = enum.auto()
    """The gateway accepted it: poll its task."""
    RETURN = enum.auto()
    """It completed: return what was recorded."""
    RAISE = enum.auto()
    """Raise the recorded error."""
    RESUBMIT = enum.auto()
    """The caller asked for another attempt: the row becomes planned, and is looked at again."""


ACCESS: Mapping[State, Access] = {
    State.PLANNED: Access.SUBMIT,
    State.INTENT: Access.WAIT,
    State.UNCERTAIN: Access.RAISE,
    State.ACCEPTED: Access.FOLLOW,
    State.COMPLETED: Access.RETURN,
    State.SAVED: Access.RETURN,
    State.FAILED: Access.RAISE,
    State.EXPIRED: Access.RAISE,
}


def decide_access(row: Row, *, resent_attempt: int | None, resend_uncertain: bool, retry_failed: bool) -> Access:
    """Decide what is done for a caller.

    Args:
        row: The row.
        resent_attempt: The number of the attempt that the caller saw first: only that one is sent again, once.
        resend_uncertain: The caller asked to send an uncertain request again.
        retry_failed: The caller asked to send a failed or expired request again.
    """
    access = ACCESS[row.state]
    if access is Access.WAIT and not row.owner_alive:
        return Access.SWEEP
    is_wanted = resend_uncertain if row.state is State.UNCERTAIN else retry_failed
    if access is Access.RAISE and is_wanted and resent_attempt in (None, row.attempt):
        return Access.RESUBMIT
    return access


def check_key(key: object, name: str = "key") -> str:
    """Return a key, or the name of a run, if it is allowed.

    Raises:
        InvalidRequest: It is not text of 1 to 512 printable characters.
    """
    if not isinstance(key, str) or not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
        raise InvalidRequest(name, key, f"it must be text of 1 to {LONGEST_KEY} printable characters")
    return key


def check_row(row: Row, digest: bytes, mine: Account, theirs: Account | None) -> None:
    """Check that a row is of the same request, and of the same gateway and account.

    Args:
        row: The row.
        digest: The digest of the caller's request.
        mine: The account of the caller's session.
        theirs: The account of the row; None if it has none.

    Raises:
        InvalidRequest: The key was used for another request.
        ConfigurationError: The row belongs to another gateway, base URL or account.
    """
    if row.digest != digest:
        raise InvalidRequest("key", row.key, "this key was used for another request")
    if theirs in (None, mine) or row.is_unbilled or row.state in (State.COMPLETED, State.SAVED):
        return
    raise ConfigurationError(
        f"the key {row.key!r} belongs to {_describe(theirs)}, and this session uses {_describe(mine)}: "
        "use a session for that gateway and account, or another key"
    )


def _describe(account: Account) -> str:
    return f"the account {account.name!r} at {account.base} ({account.gateway})"
