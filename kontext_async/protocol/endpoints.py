"""Where things are on the gateway: PROTOCOL.md, "Addresses and authentication"."""

from __future__ import annotations

from urllib.parse import quote

from kontext_async.errors import InvalidRequest

__all__ = ["check_task_id", "create_url", "is_task_id", "precharge_url", "status_url"]

MAX_ID_LENGTH = 512


def create_url(base_url: str) -> str:
    """Where a task is created."""
    return f"{base_url}/model/v1/generation"


def precharge_url(base_url: str) -> str:
    """Where the price of a request is asked for, before it is paid."""
    return f"{base_url}/model/v1/generation/precharge"


def status_url(base_url: str, task_id: str) -> str:
    """Where a task's status is asked for; the id is quoted, so that it cannot lead elsewhere."""
    plain = task_id.isascii() and task_id.isalnum()  # as they come; quoting one costs as much as all the rest
    return f"{base_url}/model/v1/generation/task/{task_id if plain else quote(task_id, safe='')}"


def check_task_id(task_id: object) -> str:
    """A task id that can be asked for.

    Raises:
        InvalidRequest: It is not text, is blank or dots only, too long, or not Unicode that can be sent.
    """
    if not isinstance(task_id, str) or not is_task_id(task_id):
        raise InvalidRequest("task_id", task_id, "it must be a task's id, as the gateway gave it")
    return task_id.strip()


def is_task_id(text: str) -> bool:
    """Whether `text` can stand in a URL as a task's id, and lead nowhere else."""
    if not text.strip().strip(".") or len(text) > MAX_ID_LENGTH:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON may hold lone surrogates
        return False
    return True
