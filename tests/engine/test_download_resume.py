"""Downloads that are resumed: what belongs together is put together, and what cannot be continued begins again."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import attrs
import pytest
from files_support import JPEG, PNG, Reply, download_session, encode_image, raw_files, reply

from kontext_async import DownloadFailed, Retries
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.anyio

DATA = encode_image("PNG", 100)
HALF = len(DATA) // 2
OTHER = DATA[:HALF] + DATA[-51:HALF:-1] + DATA[-51:]
"""Another image of the same size: only its middle differs, so that nothing but the headers tells the two apart."""
TAG = '"one"'
TAGGED = {"ETag": TAG}
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


def cut(headers: Mapping[str, str] = TAGGED) -> Reply:
    """Half of the image, and then the connection ends."""
    return reply(DATA[:HALF], length=len(DATA), headers=headers)


def rest(
    data: bytes = DATA,
    *,
    first: int = HALF,
    last: int = len(DATA) - 1,
    total: int | str = len(DATA),
    headers: Mapping[str, str] = TAGGED,
) -> Reply:
    """A part of the image from an offset on."""
    shown = {"Content-Range": f"bytes {first}-{last}/{total}", **headers}
    return reply(data[first : last + 1], status=206, headers=shown)


async def test_the_rest_of_the_same_version_is_appended() -> None:
    async with raw_files(cut(), rest()) as files, download_session() as session:
        assert await session.read(files.image) == DATA
    assert files.requested("range") == [None, f"bytes={HALF}-"]
    assert files.requested("if-range") == [None, TAG]


@pytest.mark.parametrize("total", [len(DATA), "*"])
@pytest.mark.parametrize("headers", [{"Last-Modified": DATE}, {"ETag": 'W/"one"', "Last-Modified": DATE}])
async def test_a_date_identifies_a_version_too(headers: dict[str, str], total: int | str) -> None:
    async with raw_files(cut(headers), rest(total=total, headers=headers)) as files, download_session() as session:
        assert await session.read(files.image) == DATA
    assert files.requested("if-range") == [None, DATE]


FOREIGN = {
    "another tag": rest(OTHER, headers={"ETag": '"two"'}),
    "another total": rest(OTHER, total=len(DATA) + 1),
    "another weak tag": rest(OTHER, headers={"ETag": 'W/"two"'}),
    "another date": rest(OTHER, headers={"ETag": TAG, "Last-Modified": "Thu, 22 Oct 2026 07:28:00 GMT"}),
    "another offset": rest(first=HALF - 1),
    "no offset": reply(DATA[HALF:], status=206, headers=TAGGED),
    "an encoded rest": rest(headers={"ETag": TAG, "Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("other", FOREIGN)
async def test_a_rest_of_another_version_is_not_appended(other: str) -> None:
    first = cut({"ETag": TAG, "Last-Modified": DATE})
    async with raw_files(first, FOREIGN[other], reply(DATA)) as files, download_session() as session:
        assert await session.read(files.image) == DATA
    assert files.requested("range") == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 416, 501, 500, 503])
async def test_a_server_that_refuses_every_range_sends_the_whole_image(status: int) -> None:
    refusals = [reply(status=status)] * (2 if status >= 500 else 1)
    async with raw_files(cut(), *refusals, reply(DATA)) as files, download_session() as session:
        assert await session.read(files.image) == DATA
    assert files.requested("range") == [None, *[f"bytes={HALF}-" for _ in refusals], None]


async def test_one_server_error_does_not_cost_the_part() -> None:
    async with raw_files(cut(), reply(status=503), rest()) as files, download_session() as session:
        assert await session.read(files.image) == DATA


async def test_the_last_attempt_is_one_without_a_range() -> None:
    settings = attrs.evolve(FAST, retries=Retries(attempts=2, backoff_initial=0.01, backoff_max=0.01))
    async with raw_files(cut(), reply(status=500), reply(DATA)) as files, download_session(settings) as session:
        assert await session.read(files.image) == DATA
    assert files.requested("range") == [None, f"bytes={HALF}-", None]


async def test_a_download_begins_again_once() -> None:
    replies = cut(), reply(status=400), cut()
    async with raw_files(*replies) as files, download_session() as session:
        with pytest.raises(DownloadFailed):
            await session.read(files.image)
    assert [each for each in files.requested("range") if each] == [f"bytes={HALF}-"]
    assert len(files.requests) <= 2 + FAST.retries.attempts


async def test_an_encoded_image_is_not_resumed() -> None:
    """A range would count the encoded bytes, and the part has decoded ones."""
    encoded = gzip.compress(DATA)
    headers = {"ETag": TAG, "Content-Encoding": "gzip"}
    first = reply(encoded[: len(encoded) // 2], length=len(encoded), headers=headers)
    replies = first, reply(encoded, headers=headers)
    async with raw_files(*replies) as files, download_session() as session:
        assert await session.read(files.image) == DATA
    assert files.requested("range") == [None, None]


async def test_a_server_may_send_the_rest_in_pieces() -> None:
    piece = len(DATA) // 3
    first = reply(DATA[:piece], length=len(DATA), headers=TAGGED)
    others = rest(first=piece, last=2 * piece - 1), rest(first=2 * piece)
    async with raw_files(first, *others) as files, download_session() as session:
        assert await session.read(files.image) == DATA
    assert files.requested("range") == [None, f"bytes={piece}-", f"bytes={2 * piece}-"]


async def test_a_whole_image_may_come_as_a_range() -> None:
    whole = reply(PNG, status=206, headers={"Content-Range": f"bytes 0-{len(PNG) - 1}/{len(PNG)}"})
    async with raw_files(whole) as files, download_session() as session:
        assert await session.read(files.image) == PNG


async def test_a_transformed_image_is_an_image() -> None:
    async with raw_files(reply(JPEG, status=203)) as files, download_session() as session:
        assert await session.read(files.image) == JPEG
