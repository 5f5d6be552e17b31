"""How pictures are named that belong to no run: safely for every file system, whatever the task ids hold. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from kontext_async.bulk.names import slug

if TYPE_CHECKING:
    from kontext_async.models import Generation, Outcome

__all__ = ["name_by_task"]

SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def name_by_task(outcome: Outcome, generation: Generation) -> str:
    """A name that no other task gets: the prompt, and the task's id."""
    prompt = outcome.request.prompt if outcome.request else "picture"
    return f"{slug(prompt)}-{_safe_id(generation.task_id)}"


def _safe_id(task_id: str) -> str:
    if SAFE_ID.fullmatch(task_id):
        return task_id
    digest = hashlib.sha256(task_id.encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', task_id)[:40]}-{digest}"
