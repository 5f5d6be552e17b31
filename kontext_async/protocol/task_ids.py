"""The rules for a task ID: it becomes part of a URL, and must not change its path."""

from __future__ import annotations

from kontext_async.errors import InvalidRequest

__all__ = ["check_task_id", "is_task_id"]

MAX_ID_LENGTH = 512


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
