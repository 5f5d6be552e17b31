"""``index.html``: a contact sheet of a run, which opens from disk without a server and without a network.

It contains everything but the images, to which it links by relative paths. Long runs have several pages.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping  # noqa: TC003 # attrs resolves it
from decimal import Decimal  # noqa: TC003 # as above
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
import anyio.to_thread
from attrs import frozen
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from kontext_async.bulk.directory import open_run_directory
from kontext_async.bulk.errors import ReportUnwritable, RunRefused
from kontext_async.bulk.filenames import files_of
from kontext_async.bulk.paths import open_own, reason_of
from kontext_async.bulk.records import failure_type
from kontext_async.bulk.results import read_pages
from kontext_async.settings import StoreSettings
from kontext_async.store.rows import Selection
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jinja2 import Template

    from kontext_async.bulk.directory import RunDirectory
    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row

__all__ = ["NAME", "RegeneratedReports", "regenerate_reports", "write_contact_sheet"]

LABELS = {
    State.SAVED: "Done",
    State.FAILED: "Failed",
    State.EXPIRED: "Expired",
    State.UNCERTAIN: "Uncertain",
    State.INTENT: "Being sent",
    State.PLANNED: "Not submitted",
    State.ACCEPTED: "Accepted, not downloaded",
    State.COMPLETED: "Completed, not downloaded",
}

NEXT_STEPS = {
    State.SAVED: "The image is in the directory of another worker.",
    State.FAILED: "Run again with --retry-failed to resubmit it. A new task is billed.",
    State.EXPIRED: "The gateway deleted the task. Run again with --retry-failed to resubmit it. A new task is billed.",
    State.UNCERTAIN: "Run again with --resend-uncertain to resubmit it. It may be billed twice.",
    State.INTENT: "A worker is sending it. Run again if that worker has ended.",
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


@frozen(kw_only=True)
class RegeneratedReports:
    """The summary of the run from which the reports were regenerated.

    Attributes:
        states: The number of requests in each state.
        spent: USD spent by all executions and workers of the run.
        lines: The number of lines in ``results.jsonl``.
    """

    states: Mapping[str, int]
    spent: Decimal
    lines: int


async def regenerate_reports(
    directory: Path,
    *,
    store: Store | None = None,
    run: str | None = None,
    settings: StoreSettings | None = None,
) -> RegeneratedReports:
    """Regenerate ``results.jsonl`` and ``index.html`` of a run from its store, with the requests of all its workers.

    Args:
        directory: A directory of the run; with a store of its own, any directory that has no other run.
        store: The store, not opened yet; None is the one in the directory.
        run: The name of the run; None as for `BulkRun`.
        settings: The settings of the store in the directory; None for the defaults.

    Returns:
        The summary of the run.

    Raises:
        RunRefused: There is no such run, or another process is using the directory.
        ConfigurationError: The run needs a name.
        ReportUnwritable: A file cannot be written.
        StoreError: The store cannot be used.
    """
    async with open_run_directory(directory, must_exist=store is None) as opened:
        source = store or opened.own_store(settings or StoreSettings())
        try:
            await source.open()
            name = await opened.find_run(source, run)
            found = await source.open_run(name, create=False)
            if found is None:
                raise RunRefused(f"the store has no run {name!r}: check the name of the run")
            await opened.join(source, found)
            lines = await opened.results.regenerate(source, found.id, opened.folder, await source.folders())
            await write_contact_sheet(opened, source, found.id)
            summary = await source.summary(found.id)
        finally:
            with anyio.CancelScope(shield=True):
                await source.aclose()
    states = {str(state): count for state, count in summary.states.items() if count}
    return RegeneratedReports(states=states, spent=summary.spent, lines=lines)


async def write_contact_sheet(directory: RunDirectory, store: Store, run: int) -> int:
    """Write the contact sheet of a run, with the requests of all its workers, and replace an earlier one.

    Args:
        directory: The run's directory.
        store: The store, open.
        run: The number of the run.

    Returns:
        The number of requests on the sheet.

    Raises:
        ReportUnwritable: The sheet cannot be written.
        StoreError: The store cannot be read.
    """
    summary = await store.summary(run)
    links = await anyio.to_thread.run_sync(_links_to_folders, directory, await store.folders())
    total = summary.states.total()
    pages = max(1, -(-total // CARDS_PER_PAGE))
    page, shown = 1, 0
    cards: list[dict[str, Any]] = []
    frame = {
        "title": directory.path.name or "run",
        "total": total,
        "spent": f"{summary.spent:f}",
        "pages": pages,
        "plain": PLAIN_CARDS,
        "labels": {str(state): label for state, label in LABELS.items()},
        "next_steps": {str(state): advice for state, advice in NEXT_STEPS.items()},
    }
    async for rows in read_pages(store, Selection(run=run)):
        cards += await anyio.to_thread.run_sync(_cards_of, rows, links)
        while len(cards) >= CARDS_PER_PAGE and page < pages:
            await anyio.to_thread.run_sync(_write, directory.path, page, cards[:CARDS_PER_PAGE], frame)
            shown += CARDS_PER_PAGE
            page, cards = page + 1, cards[CARDS_PER_PAGE:]
    await anyio.to_thread.run_sync(_write, directory.path, page, cards, frame)
    await anyio.to_thread.run_sync(_remove_later, directory.path, page)
    return shown + len(cards)


@frozen(kw_only=True)
class Folder:
    """A directory of the run, as the sheet links to it.

    Attributes:
        path: The path, for people.
        prefix: The start of the links to its images; None if the directory cannot be seen from here.
    """

    path: str
    prefix: str | None


def _links_to_folders(directory: RunDirectory, folders: Mapping[int, str]) -> dict[int, Folder]:
    """Return the directories of the run by number. Those of other machines may not exist here."""
    links = {}
    for number, path in folders.items():
        if number == directory.folder:
            prefix: str | None = ""
        elif Path(path).is_dir():
            relative = os.path.relpath(path, directory.path)
            prefix = quote(relative.replace(os.sep, "/")) + "/"
        else:
            prefix = None
        links[number] = Folder(path=path, prefix=prefix)
    return links


def _cards_of(rows: Iterable[Row], folders: Mapping[int, Folder]) -> list[dict[str, Any]]:
    return [_card(row, folders.get(row.folder or 0)) for row in rows]


def _card(row: Row, folder: Folder | None) -> dict[str, Any]:
    """Return the data of a card, with short names, because a page may contain thousands of cards."""
    seed = row.fields.get("seed")
    files = files_of(row, row.folder or 0) if row.state is State.SAVED and folder and folder.prefix is not None else ()
    known = {
        "i": row.position if row.position is not None else row.key,
        "p": row.prompt[:PROMPT_LENGTH],
        "s": str(State.UNCERTAIN if row.state is State.INTENT and not row.owner_alive else row.state),
        "f": [f"{folder.prefix}{quote(name)}" for name, _ in files] if folder and files else None,
        "c": None if row.cost is None else f"{row.cost:f}",
        "t": None if row.seconds is None else round(row.seconds, 1),
        "d": None if seed is None else str(seed),
        "r": row.fields.get("aspect_ratio"),
        "k": row.task_id,
        "e": failure_type(row),
        "m": _message(row, folder, has_files=bool(files)),
    }
    return {name: value for name, value in known.items() if value is not None}


def _message(row: Row, folder: Folder | None, *, has_files: bool) -> str | None:
    if row.state is State.SAVED:
        return None if has_files else f"saved in {folder.path if folder else 'a directory that is not known'}"
    error = row.error or {}
    return str(error.get("message", INTERRUPTED))[:ERROR_LENGTH] if failure_type(row) else None


@cache
def _template() -> Template:
    environment = Environment(loader=PackageLoader("kontext_async.bulk", "."), autoescape=True, trim_blocks=True)
    return environment.get_template("contact_sheet.html.jinja")


def _write(directory: Path, page: int, cards: Sequence[dict[str, Any]], frame: Mapping[str, Any]) -> None:
    path = directory / _name(page)
    temporary = directory / f".{path.name}.{secrets.token_hex(4)}.part"
    links = [(number, _name(number)) for number in range(1, frame["pages"] + 1)]
    try:
        with open_own(temporary, "x", encoding="utf-8", errors="xmlcharrefreplace") as file:
            file.writelines(_template().generate(**frame, page=page, links=links, cards=cards, data=_embedded(cards)))
        os.replace(temporary, path)  # noqa: PTH105 # it overwrites
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ReportUnwritable(
            f"{path} cannot be written: {reason_of(error)}; the images and the store are complete"
        ) from error


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
