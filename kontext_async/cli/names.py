"""How pictures are named: safely for every file system, whatever prompts and task ids hold. Pure."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kontext_async.models import Generation, Outcome

__all__ = ["name_by_index", "name_by_task", "slug"]

SLUG_LENGTH = 48
SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def slug(prompt: str) -> str:
    """The beginning of a prompt as lower-case ASCII letters and digits, with hyphens between the words."""
    plain = unicodedata.normalize("NFKD", prompt[: 8 * SLUG_LENGTH]).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain.replace("'", ""))
    return "-".join(words)[:SLUG_LENGTH].strip("-") or "picture"


def name_by_index(outcome: Outcome, generation: Generation) -> str:
    """A name for one of many: the request's place, from 0, and its prompt."""
    prompt = outcome.request.prompt if outcome.request else generation.task_id
    return f"{outcome.index:06d}-{slug(prompt)}"


def name_by_task(outcome: Outcome, generation: Generation) -> str:
    """A name that no other task gets: the prompt, and the task's id."""
    prompt = outcome.request.prompt if outcome.request else "picture"
    return f"{slug(prompt)}-{_safe_id(generation.task_id)}"


def _safe_id(task_id: str) -> str:
    if SAFE_ID.fullmatch(task_id):
        return task_id
    digest = hashlib.sha256(task_id.encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', task_id)[:40]}-{digest}"
