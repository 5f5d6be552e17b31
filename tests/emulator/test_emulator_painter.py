import io
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from kontext_async.emulator.links import Links, Verdict
from kontext_async.emulator.painter import Brief, UnreadableImageError, paint, read_image, sides
from kontext_async.emulator.palette import PALETTES
from kontext_async.emulator.ranges import UnsatisfiableError, wanted_range


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("output_format", ["jpeg", "png"])
def test_size_and_format(output_format: str) -> None:
    image = opened(paint(Brief(prompt="a fox", seed=1, width=200, height=130, output_format=output_format)))
    assert image.size == (200, 130)
    assert image.format == output_format.upper()


def test_the_same_brief_makes_the_same_bytes() -> None:
    brief = Brief(prompt="a fox", seed=1, width=160, height=160)
    assert paint(brief) == paint(brief)


def test_seed_prompt_number_and_digest_make_a_difference() -> None:
    briefs = [
        Brief(prompt="a fox", seed=1, width=130, height=130),
        Brief(prompt="a fox", seed=2, width=130, height=130),
        Brief(prompt="an owl", seed=1, width=130, height=130),
        Brief(prompt="a fox", seed=1, width=130, height=130, number=1),
        Brief(prompt="a fox", seed=1, width=130, height=130, digest="d"),
    ]
    assert len({paint(brief) for brief in briefs}) == len(briefs)


@pytest.mark.parametrize("word", [*PALETTES, "mountain", "desert", "forest", "boat"])
def test_every_kind_of_land_can_be_painted(word: str) -> None:
    for seed in range(4):
        assert opened(paint(Brief(prompt=f"a {word}", seed=seed, width=150, height=90))).size == (150, 90)


@settings(max_examples=30, deadline=None)
@given(st.text(), st.integers(), st.integers(16, 300), st.integers(16, 300))
def test_anything_can_be_painted(prompt: str, seed: int, width: int, height: int) -> None:
    assert opened(paint(Brief(prompt=prompt, seed=seed, width=width, height=height))).size == (width, height)


def test_lone_surrogates_and_endless_words_do_no_harm() -> None:
    assert paint(Brief(prompt="\ud800 " + "w" * 500, seed=10**400, width=140, height=140))


def test_input_images_are_seen(helpers: Any) -> None:
    red = read_image(helpers.picture(kind="JPEG", size=(90, 60)))
    plain = opened(paint(Brief(prompt="quiet", seed=3, width=200, height=200)))
    for images in ((red,), (red, red, "https://example.com/fox.jpg"), (red, "http://x", red, red)):
        edited = opened(paint(Brief(prompt="quiet", seed=3, width=200, height=200, images=images)))
        reddish = [sum(_is_red(pixel) for pixel in _pixels(image)) for image in (plain, edited)]
        assert reddish[1] > reddish[0] + 300


def _pixels(image: Image.Image) -> list[tuple[int, ...]]:
    data = image.convert("RGB").tobytes()
    return [tuple(data[index : index + 3]) for index in range(0, len(data), 3)]


def _is_red(pixel: tuple[int, ...]) -> bool:
    return pixel[0] > 170 and pixel[1] < 90 and pixel[2] < 90


def test_an_input_image_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (80, 40)).save(buffer, "JPEG", exif=exif)
    read = read_image(buffer.getvalue())
    assert (read.width, read.height) == (40, 80)
    assert opened(read.thumbnail).size == (40, 80)


def test_transparency_is_laid_on_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(buffer, "PNG")
    assert opened(read_image(buffer.getvalue()).thumbnail).getpixel((5, 5)) == (255, 255, 255)


def test_large_images_are_kept_small(helpers: Any) -> None:
    read = read_image(helpers.picture(kind="JPEG", size=(2000, 1000)))
    assert (read.width, read.height) == (2000, 1000)
    assert max(opened(read.thumbnail).size) == 512


def test_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch, helpers: Any) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError):
        read_image(helpers.picture(size=(50, 50)))
    with pytest.raises(UnreadableImageError):
        read_image(helpers.picture(size=(14, 14)))


@given(st.integers(1, 21), st.integers(1, 21), st.integers(1000, 2_000_000))
def test_sides_keep_ratio_and_area(width: int, height: int, pixels: int) -> None:
    if not 9 / 21 <= width / height <= 21 / 9:
        width = height
    wide, high = sides((width, height), pixels)
    assert wide * high == pytest.approx(pixels, rel=0.1)
    assert wide / high == pytest.approx(width / height, rel=0.1)


@given(st.binary(min_size=1, max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_ranges(data: bytes, first: int, last: int) -> None:
    try:
        wanted = wanted_range(f"bytes={first}-{last}", None, etag="e", size=len(data))
    except UnsatisfiableError:
        assert first >= len(data)
    else:
        assert (wanted is None) == (last < first < len(data)) or first >= len(data)
        if wanted is not None:
            assert data[wanted.start : wanted.stop] == data[first : last + 1]


@pytest.mark.parametrize(
    ("header", "if_range", "expected"),
    [
        (None, None, None),
        ("bytes=-", None, None),
        ("bytes=1-2,4-5", None, None),
        ("lines=1-2", None, None),
        ("bytes=2-", None, range(2, 10)),
        ("bytes=-3", None, range(7, 10)),
        ("bytes=-99", None, range(10)),
        ("bytes=2-", "e", range(2, 10)),
        ("bytes=2-", "other", None),
    ],
)
def test_range_headers(header: str | None, if_range: str | None, expected: range | None) -> None:
    assert wanted_range(header, if_range, etag="e", size=10) == expected


def test_result_urls_expire_and_cannot_be_forged() -> None:
    links = Links(origin="http://files", secret=b"s", lifetime=10)
    url = links.url("task", 0, "png", 100.0)
    assert links.name_in(url, 109.9) == "task/0.png"
    assert links.name_in(url, 110.0) is None
    assert links.name_in(url.replace("task", "other"), 100.0) is None
    assert links.name_in("http://elsewhere" + url.removeprefix("http://files"), 100.0) is None
    assert links.name_in("http://files/other", 100.0) is None
    assert links.check("task/0.png", {}, 100.0) is Verdict.FORGED
    assert links.check("task/0.png", {"signature": "\u00e9", "expires": "x"}, 100.0) is Verdict.FORGED
