"""``index.html``: a contact sheet of a run, which opens from disk without a server and without a network.

It contains everything but the images, to which it links by relative paths. Long runs have several pages.
"""

from __future__ import annotations

import json
import os
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio.to_thread
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from kontext_async.bulk.errors import JournalFailed
from kontext_async.bulk.paths import open_own
from kontext_async.bulk.records import failure_type
from kontext_async.bulk.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kontext_async.bulk.entries import JournalRow
    from kontext_async.bulk.journal import Journal

__all__ = ["NAME", "write_sheet"]

LABELS = {
    State.SAVED: "Done",
    State.FAILED: "Failed",
    State.EXPIRED: "Expired",
    State.INTENT: "Uncertain",
    State.PLANNED: "Not submitted",
    State.ACCEPTED: "Accepted, not downloaded",
    State.COMPLETED: "Completed, not downloaded",
}

NEXT_STEPS = {
    State.FAILED: "Run again with --retry-failed to resubmit it. A new task is billed.",
    State.EXPIRED: "The gateway deleted the task. Run again with --retry-failed to resubmit it. A new task is billed.",
    State.INTENT: "Run again with --resend-uncertain to resubmit it. It may be billed twice.",
    State.PLANNED: "Not billed. Run again to submit it.",
    State.ACCEPTED: "Already paid for. Run again to download the image.",
    State.COMPLETED: "Already paid for. Run again to download the image.",
}
"""The advice on the card of a request without an image."""

INTERRUPTED = "the run ended while the request was being sent; the gateway may have accepted and billed it"
"""The message on the card of an uncertain request without an error: the process was killed."""

NAME = "index.html"
CARDS_PER_PAGE = 10_000
PLAIN_CARDS = 200
"""Cards per page that are shown without JavaScript."""

PROMPT_LENGTH = 2000
ERROR_LENGTH = 400


async def write_sheet(directory: Path, journal: Journal) -> int:
    """Write the contact sheet, and replace an earlier one.

    Args:
        directory: The run's directory.
        journal: The open journal.

    Returns:
        The number of requests on the sheet.

    Raises:
        JournalFailed: The journal cannot be read, or the sheet cannot be written.
    """
    standing = await journal.standing()
    total = standing.states.total()
    pages = max(1, -(-total // CARDS_PER_PAGE))
    page, shown = 1, 0
    cards: list[dict[str, Any]] = []
    frame = {
        "title": directory.name or "run",
        "total": total,
        "counts": {str(state): count for state, count in standing.states.items()},
        "spent": f"{standing.spent:f}",
        "pages": pages,
        "plain": PLAIN_CARDS,
        "labels": {str(state): label for state, label in LABELS.items()},
        "next_steps": {str(state): advice for state, advice in NEXT_STEPS.items()},
    }
    async for row in journal.rows():
        cards.append(_card(row))
        if len(cards) == CARDS_PER_PAGE and page < pages:
            await anyio.to_thread.run_sync(_write, directory, page, cards, frame)
            shown += len(cards)
            page, cards = page + 1, []
    await anyio.to_thread.run_sync(_write, directory, page, cards, frame)
    await anyio.to_thread.run_sync(_remove_later, directory, page)
    return shown + len(cards)


def _card(row: JournalRow) -> dict[str, Any]:
    """Return the data of a card, with short names, because a page may contain thousands of cards."""
    error = row.error or {}
    seed = row.fields.get("seed")
    known = {
        "i": row.position,
        "p": row.prompt[:PROMPT_LENGTH],
        "s": str(row.state),
        "f": [quote(name) for name, _ in row.files] if row.state is State.SAVED else None,
        "c": None if row.cost is None else f"{row.cost:f}",
        "t": None if row.seconds is None else round(row.seconds, 1),
        "d": None if seed is None else str(seed),
        "r": row.fields.get("aspect_ratio"),
        "k": row.task_id,
        "e": failure_type(row),
        "m": str(error.get("message", INTERRUPTED))[:ERROR_LENGTH] if failure_type(row) else None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _write(directory: Path, page: int, cards: Sequence[dict[str, Any]], frame: dict[str, Any]) -> None:
    environment = Environment(loader=PackageLoader("kontext_async.bulk", "."), autoescape=True, trim_blocks=True)
    path = directory / _name(page)
    temporary = directory / f".{path.name}.{secrets.token_hex(4)}.part"
    template = environment.get_template("sheet.html.jinja")
    links = [(number, _name(number)) for number in range(1, frame["pages"] + 1)]
    try:
        with open_own(temporary, "x", encoding="utf-8", errors="xmlcharrefreplace") as file:
            file.writelines(template.generate(**frame, page=page, links=links, cards=cards, data=_embedded(cards)))
        os.replace(temporary, path)  # noqa: PTH105 # it overwrites
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror or error
        raise JournalFailed(f"{path} cannot be written: {reason}; all images and the journal are saved") from error


def _embedded(cards: Sequence[dict[str, Any]]) -> Markup:
    """Return JSON that is safe in a script element: nothing in it ends the element or starts a comment."""
    text = json.dumps(cards, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 # escaped


def _name(page: int) -> str:
    return NAME if page == 1 else f"index-{page}.html"


def _remove_later(directory: Path, page: int) -> None:
    """Delete the surplus pages of an earlier, longer sheet."""
    while (path := directory / _name(page := page + 1)).exists():
        path.unlink()
