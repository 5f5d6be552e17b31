"""URLs, and the rules for a task ID in a URL: PROTOCOL.md, "Addresses and authentication"."""

from __future__ import annotations

from urllib.parse import quote

from kontext_async.errors import InvalidRequest

__all__ = ["check_task_id", "create_url", "is_task_id", "precharge_url", "status_url"]

MAX_ID_LENGTH = 512


def create_url(base_url: str) -> str:
    """Return the URL of a create request."""
    return f"{base_url}/model/v1/generation"


def precharge_url(base_url: str) -> str:
    """Return the URL of a precharge request, which returns the price of a create request."""
    return f"{base_url}/model/v1/generation/precharge"


def status_url(base_url: str, task_id: str) -> str:
    """Return the URL of a status request. The ID is quoted, so that it cannot change the path."""
    is_plain = task_id.isascii() and task_id.isalnum()  # the usual ID; quoting costs as much as all the rest
    return f"{base_url}/model/v1/generation/task/{task_id if is_plain else quote(task_id, safe='')}"


def check_task_id(task_id: object) -> str:
    """Return a user's task ID without the blanks around it.

    Raises:
        InvalidRequest: It is not text, is blank, has only dots, is too long, or is not valid Unicode.
    """
    if not isinstance(task_id, str) or not is_task_id(task_id):
        raise InvalidRequest("task_id", task_id, "it must be a task ID as the gateway returned it")
    return task_id.strip()


def is_task_id(text: str) -> bool:
    """Return True if `text` can be a task ID in a URL, without changing the path."""
    if not text.strip().strip(".") or len(text) > MAX_ID_LENGTH:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON may contain lone surrogates
        return False
    return True
