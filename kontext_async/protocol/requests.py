"""The create request: PROTOCOL.md, "Create: the request". No I/O in here but an image's own.

A body is a list of pieces. Its length is known before it is sent, and it can be sent again from the start. Images
are put into base64 while they are sent, so that a body takes no memory beyond its images.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen
from pybase64 import b64encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kontext_async.images import LoadedImage
    from kontext_async.models import KontextRequest

__all__ = ["CreateBody", "ImagePart", "TextPart", "encode_create", "fingerprint"]

PIECE = 48 * 1024
"""Bytes of an image that are encoded at once: divisible by three, small enough not to hold the loop (FIGURES.md)."""

TEXT_PIECE = 64 * 1024
"""Bytes of JSON text that are sent at once."""

PLAIN_FIELDS = ("prompt", "seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance")
CLOSING = b"}}]}"


@frozen
class TextPart:
    """A stretch of a body that is JSON as it stands.

    Attributes:
        text: The JSON.
        on_disk: Whether its pieces may have to be read from a disk.
    """

    text: bytes = field(repr=False)
    on_disk = False

    @property
    def length(self) -> int:
        """Its bytes in the body."""
        return len(self.text)

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, in pieces."""
        for start in range(0, len(self.text), TEXT_PIECE):
            yield self.text[start : start + TEXT_PIECE]


@frozen
class ImagePart:
    """A stretch of a body that is an image in base64.

    Attributes:
        image: The image.
    """

    image: LoadedImage = field(repr=False)

    @property
    def length(self) -> int:
        """Its bytes in the body."""
        return 4 * ((self.image.size + 2) // 3)

    @property
    def on_disk(self) -> bool:
        """Whether its pieces may have to be read from a disk."""
        return self.image.on_disk

    def pieces(self) -> Iterator[bytes]:
        """Its base64, in pieces.

        Raises:
            InvalidRequest: The image is not what it was when it was loaded.
        """
        return map(b64encode, self.image.chunks(PIECE))


Part: TypeAlias = TextPart | ImagePart


@frozen
class CreateBody:
    """The body of a create request.

    Attributes:
        parts: JSON text and images in turn, in the order in which they are sent. The last one is text.
        length: The size of the whole, in bytes, images in base64.
    """

    parts: tuple[Part, ...]
    length: int

    def pieces(self) -> Iterator[bytes]:
        """The body from its start, in pieces small enough to be sent one at a time."""
        for part in self.parts:
            yield from part.pieces()


def encode_create(request: KontextRequest, images: Sequence[LoadedImage]) -> CreateBody:
    """The body that creates a task for `request`, whose input images have been loaded."""
    params = _plain_params(request)
    inline: list[tuple[str, LoadedImage]] = []
    for name, image in zip(_image_names(), images, strict=False):
        if image.url is None:
            inline.append((name, image))
        else:
            params[name] = image.url
    text = json.dumps({"model": request.model, "input": [{"params": params}]}, separators=(",", ":")).encode()
    parts: list[Part] = []
    before = text.removesuffix(CLOSING)
    for name, image in inline:
        parts += [TextPart(before + f',"{name}":"'.encode()), ImagePart(image)]
        before = b'"'
    parts.append(TextPart(before + CLOSING))
    return CreateBody(tuple(parts), sum(part.length for part in parts))


def fingerprint(request: KontextRequest, images: Sequence[LoadedImage]) -> str:
    """A digest of every field and of the contents of every image: equal requests have equal ones.

    Returns:
        64 hexadecimal characters: SHA-256 of the canonical JSON.
    """
    content = {
        "model": request.model,
        "params": _plain_params(request),
        "images": [image.digest for image in images],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain_params(request: KontextRequest) -> dict[str, object]:
    """The fields that were given, without the images: a field that was not given is never sent as null."""
    return {name: value for name in PLAIN_FIELDS if (value := getattr(request, name)) is not None}


def _image_names() -> tuple[str, ...]:
    return "input_image", "input_image_2", "input_image_3", "input_image_4"
