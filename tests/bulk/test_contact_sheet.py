"""The contact sheet, in Chromium and as text."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, sync_playwright
from rows_support import RowWriter

from kontext_async.bulk import RunRefused, contact_sheet
from kontext_async.bulk.contact_sheet import regenerate_reports, write_contact_sheet
from kontext_async.bulk.directory import RunDirectory, open_run_directory
from kontext_async.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bulk_support import Folder, RunRequests

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

HOSTILE = "</script><script>document.title = 'taken'</script> & \"quotes\" <b>bold</b>"


async def run_with_failures(run: RunRequests, emulator: Emulator) -> None:
    emulator.faults.script("create", ["failed-at-once", "cut-after-accept"])
    requests = [{"prompt": HOSTILE, "seed": 5, "aspect_ratio": "16:9"}, *(f"fox {number}" for number in range(150))]
    await run([*requests, {"prompt": "a wolf", "seed": 77}])


@pytest.fixture
def page(anyio_backend: str) -> Iterator[Page]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium to open the sheet in")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


@pytest.fixture
async def sheet_path(run: RunRequests, folder: Folder, emulator: Emulator) -> Path:
    await run_with_failures(run, emulator)
    return folder.path / "index.html"


def test_the_sheet_shows_searches_and_filters_all_requests(sheet_path: Path, page: Page) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(sheet_path.as_uri())
    page.wait_for_selector(".card")
    assert page.title() == "out: contact sheet"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    drawn = page.locator("#grid .card").count()
    assert drawn < 152, "cards are drawn as they are needed"
    for _ in range(400):
        page.mouse.wheel(0, 20_000)
        if page.locator("#grid .card").count() == 152:
            break
        page.wait_for_timeout(25)
    assert page.locator("#grid .card").count() == 152

    def found(text: str) -> list[str]:
        page.fill("#search", text)
        page.wait_for_timeout(150)
        return page.locator("#grid .prompt").all_inner_texts()

    assert found("WOLF 77") == ["a wolf"]
    assert found("bold") == [HOSTILE]
    assert found("nothing like it") == []
    assert page.locator("#empty").inner_text() == "No requests match this search and filter."
    assert page.locator("#empty").is_visible()
    found("")
    labels = page.locator("#states button").all_inner_texts()
    assert labels == ["All 152", "Done 150", "Failed 1", "Uncertain 1"]
    page.click("#states button[data-state=failed]")
    assert page.locator(".card .none").all_text_contents()[0].strip().startswith("Failed")
    assert page.locator("#found").inner_text() == "1 of 152"
    page.click("#states button[data-state=saved]")
    assert page.evaluate("[...document.images].filter(each => each.complete && !each.naturalWidth).length") == 0
    assert page.evaluate("[...document.images].some(each => each.naturalWidth > 0)")
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert problems == []


def test_the_sheet_follows_the_color_scheme_of_the_system(sheet_path: Path, page: Page) -> None:
    backgrounds = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.goto(sheet_path.as_uri())
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == ["rgb(21, 22, 24)", "rgb(246, 245, 242)"]


def test_prompts_are_escaped_in_the_page_and_in_its_fallback_without_javascript(sheet_path: Path) -> None:
    text = sheet_path.read_text("utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "<b>bold" not in text
    plain = text[text.index("<noscript>") : text.index("</noscript>")]
    assert plain.count('loading="lazy"') == 150
    assert "&lt;b&gt;bold&lt;/b&gt;" in plain
    assert "task failed: generation failed" in plain
    assert "Run again with --retry-failed to resubmit it." in plain
    assert "It may be billed twice." in plain
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    cards = json.loads(found[1])
    assert cards[0]["p"] == HOSTILE
    assert not re.search(r"""(src|href)=["']?https?:""", text)


async def test_a_long_run_has_several_pages(run: RunRequests, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "CARDS_PER_PAGE", 4)
    await run([f"fox {number}" for number in range(9)])
    assert [name for name in folder.other_files() if name.startswith("index")] == [
        "index-2.html",
        "index-3.html",
        "index.html",
    ]
    second = (folder.path / "index-2.html").read_text("utf-8")
    assert "page 2 of 3" in second
    assert 'href="index.html"' in second
    assert 'href="index-3.html"' in second
    assert "fox 4" in second
    assert "fox 3" not in second
    monkeypatch.setattr(contact_sheet, "CARDS_PER_PAGE", 100)
    await regenerate_reports(folder.path)
    assert [name for name in folder.other_files() if name.startswith("index")] == ["index.html"]


async def written_cards(directory: RunDirectory, store: MemoryStore, run: int) -> list[dict[str, object]]:
    """Write the sheet, and return the data of its cards."""
    await write_contact_sheet(directory, store, run)
    text = (directory.path / "index.html").read_text("utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    cards: list[dict[str, object]] = json.loads(found[1])
    return cards


async def test_the_sheet_of_a_shared_run_links_to_the_images_of_all_workers(tmp_path: Path) -> None:
    store = MemoryStore()
    writer = await RowWriter.start(store, "night")
    rows = await writer.plan("mine", "theirs", "far")
    for name in ("mine", "another one"):
        (tmp_path / name).mkdir()
    theirs = await store.folder(b"2" * 16, str(tmp_path / "another one"))
    far = await store.folder(b"3" * 16, "/on/another/machine")
    async with open_run_directory(tmp_path / "mine") as directory:
        run = await store.open_run(await directory.find_run(store, "night"))
        assert run
        await directory.join(store, run)
        for row, folder in zip(rows, (directory.folder, theirs, far), strict=True):
            await writer.save(row, folder=folder, name="a fox.jpg")
        mine, other, remote = await written_cards(directory, store, run.id)
    assert mine["f"] == ["a%20fox.jpg"]
    assert other["f"] == ["../another%20one/a%20fox.jpg"]
    assert "f" not in remote
    assert remote["m"] == "saved in /on/another/machine"


async def test_a_request_that_a_live_worker_is_sending_is_not_called_uncertain(tmp_path: Path) -> None:
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    writer = await RowWriter.start(store, "night", lease=15)
    await writer.submit(*await writer.plan("fox"))
    async with open_run_directory(tmp_path / "out") as directory:
        run = await store.open_run(await directory.find_run(store, "night"))
        assert run
        await directory.join(store, run)
        assert [card["s"] for card in await written_cards(directory, store, run.id)] == ["intent"]
        now[0] = 16.0
        assert [card["s"] for card in await written_cards(directory, store, run.id)] == ["uncertain"]


async def test_the_reports_of_a_shared_run_are_written_in_a_fresh_directory(tmp_path: Path) -> None:
    store = MemoryStore()
    writer = await RowWriter.start(store, "night")
    rows = await writer.plan("fox", "wolf", "owl")
    await writer.save(rows[0], folder=await store.folder(b"1" * 16, "/a"))
    await writer.fail(rows[1], folder=await store.folder(b"2" * 16, "/b"))
    reports = await regenerate_reports(tmp_path / "reports", store=store.share(), run="night")
    assert (reports.lines, reports.states) == (2, {"failed": 1, "planned": 1, "saved": 1})
    lines = map(json.loads, (tmp_path / "reports" / "results.jsonl").read_text("utf-8").splitlines())
    assert [(line["folder"], line["prompt"]) for line in lines] == [("/a", "fox"), ("/b", "wolf")]
    assert "saved in /a" in (tmp_path / "reports" / "index.html").read_text("utf-8")


async def test_there_is_no_report_of_a_run_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RunRefused, match="there is no run in"):
        await regenerate_reports(tmp_path / "nowhere")
    with pytest.raises(RunRefused, match="the store has no run 'night'"):
        await regenerate_reports(tmp_path / "reports", store=MemoryStore(), run="night")
    assert list((tmp_path / "reports").iterdir()) == [tmp_path / "reports" / ".lock"]
