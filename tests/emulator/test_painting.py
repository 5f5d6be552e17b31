import io

import pytest
from hypothesis import given, settings, strategies as st
from image_support import make_image
from PIL import Image

from kontext_async.emulator.painting.input_images import UnreadableImage, read_image
from kontext_async.emulator.painting.painter import Brief, compute_sides, paint
from kontext_async.emulator.painting.palette import PALETTES


def open_image(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("output_format", ["jpeg", "png"])
def test_an_image_has_the_size_and_format_of_its_brief(output_format: str) -> None:
    image = open_image(paint(Brief(prompt="a fox", seed=1, width=200, height=130, output_format=output_format)))
    assert image.size == (200, 130)
    assert image.format == output_format.upper()


def test_the_same_brief_gives_the_same_bytes() -> None:
    brief = Brief(prompt="a fox", seed=1, width=160, height=160)
    assert paint(brief) == paint(brief)


def test_seed_prompt_number_and_digest_change_the_image() -> None:
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
        assert open_image(paint(Brief(prompt=f"a {word}", seed=seed, width=150, height=90))).size == (150, 90)


@settings(max_examples=30, deadline=None)
@given(st.text(), st.integers(), st.integers(16, 300), st.integers(16, 300))
def test_any_prompt_seed_and_size_can_be_painted(prompt: str, seed: int, width: int, height: int) -> None:
    assert open_image(paint(Brief(prompt=prompt, seed=seed, width=width, height=height))).size == (width, height)


def test_lone_surrogates_and_very_long_words_can_be_painted() -> None:
    assert paint(Brief(prompt="\ud800 " + "w" * 500, seed=10**400, width=140, height=140))


def test_input_images_are_visible_in_the_image() -> None:
    red = read_image(make_image(image_format="JPEG", size=(90, 60)))
    plain = open_image(paint(Brief(prompt="quiet", seed=3, width=200, height=200)))
    for images in ((red,), (red, red, "https://example.com/fox.jpg"), (red, "http://x", red, red)):
        edited = open_image(paint(Brief(prompt="quiet", seed=3, width=200, height=200, images=images)))
        reddish = [sum(_is_red(pixel) for pixel in _list_pixels(image)) for image in (plain, edited)]
        assert reddish[1] > reddish[0] + 300


def _list_pixels(image: Image.Image) -> list[tuple[int, ...]]:
    data = image.convert("RGB").tobytes()
    return [tuple(data[index : index + 3]) for index in range(0, len(data), 3)]


def _is_red(pixel: tuple[int, ...]) -> bool:
    return pixel[0] > 170 and pixel[1] < 90 and pixel[2] < 90


def test_the_exif_orientation_of_an_input_image_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (80, 40)).save(buffer, "JPEG", exif=exif)
    read = read_image(buffer.getvalue())
    assert (read.width, read.height) == (40, 80)
    assert open_image(read.thumbnail).size == (40, 80)


def test_transparent_input_images_get_a_white_background() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(buffer, "PNG")
    assert open_image(read_image(buffer.getvalue()).thumbnail).getpixel((5, 5)) == (255, 255, 255)


def test_large_input_images_are_kept_as_thumbnails() -> None:
    read = read_image(make_image(image_format="JPEG", size=(2000, 1000)))
    assert (read.width, read.height) == (2000, 1000)
    assert max(open_image(read.thumbnail).size) == 512


def test_input_images_with_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImage):
        read_image(make_image(size=(50, 50)))
    with pytest.raises(UnreadableImage):
        read_image(make_image(size=(14, 14)))


@given(st.integers(1, 21), st.integers(1, 21), st.integers(1000, 2_000_000))
def test_computed_sides_keep_ratio_and_area(width: int, height: int, pixels: int) -> None:
    if not 9 / 21 <= width / height <= 21 / 9:
        width = height
    wide, high = compute_sides((width, height), pixels)
    assert wide * high == pytest.approx(pixels, rel=0.1)
    assert wide / high == pytest.approx(width / height, rel=0.1)
