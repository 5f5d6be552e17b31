"""The create request: PROTOCOL.md, "Create: the request". The only I/O is an image's own.

A body is a list of parts. Its length is known before it is sent, and it can be sent again from the start. Images are
encoded in base64 while they are sent, so that a body needs no memory beyond its images.
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
"""Bytes of an image that are encoded at once: divisible by three, and few enough not to block the event loop
(``python -m benchmarks --only uploads``)."""

TEXT_PIECE = 64 * 1024
"""Bytes of JSON text that are sent at once."""

PLAIN_FIELDS = ("prompt", "seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance")
IMAGE_FIELDS = ("input_image", "input_image_2", "input_image_3", "input_image_4")
CLOSING = b"}}]}"


@frozen
class TextPart:
    """A part of a body that is ready-made JSON.

    Attributes:
        text: The JSON.
        on_disk: True if reading the pieces may block on a disk.
    """

    text: bytes = field(repr=False)
    on_disk = False

    @property
    def length(self) -> int:
        """The number of bytes in the body."""
        return len(self.text)

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes in pieces."""
        for start in range(0, len(self.text), TEXT_PIECE):
            yield self.text[start : start + TEXT_PIECE]


@frozen
class ImagePart:
    """A part of a body that is an image in base64.

    Attributes:
        image: The image.
    """

    image: LoadedImage = field(repr=False)

    @property
    def length(self) -> int:
        """The number of bytes in the body."""
        return 4 * ((self.image.size + 2) // 3)

    @property
    def on_disk(self) -> bool:
        """True if reading the pieces may block on a disk."""
        return self.image.on_disk

    def pieces(self) -> Iterator[bytes]:
        """Yield the base64 in pieces.

        Raises:
            InvalidRequest: The image changed since it was loaded, or is no longer readable.
        """
        return map(b64encode, self.image.chunks(PIECE))


Part: TypeAlias = TextPart | ImagePart


@frozen
class CreateBody:
    """The body of a create request.

    Attributes:
        parts: JSON text and images in turn, in the order in which they are sent. The last part is text.
        length: The size of the body in bytes, with images in base64.
    """

    parts: tuple[Part, ...]
    length: int

    def pieces(self) -> Iterator[bytes]:
        """Yield the body from its start, in pieces small enough to be sent one at a time."""
        for part in self.parts:
            yield from part.pieces()


def encode_create(request: KontextRequest, images: Sequence[LoadedImage]) -> CreateBody:
    """Return the body of the create request for `request`, with its loaded input images."""
    params = _collect_params(request)
    inline: list[tuple[str, LoadedImage]] = []
    for name, image in zip(IMAGE_FIELDS, images, strict=False):
        if image.url is None:
            inline.append((name, image))
        else:
            params[name] = image.url
    content = {"model": request.model, **_collect_top_level(request), "input": [{"params": params}]}
    text = json.dumps(content, separators=(",", ":")).encode()
    parts: list[Part] = []
    before = text.removesuffix(CLOSING)
    for name, image in inline:
        parts += [TextPart(before + f',"{name}":"'.encode()), ImagePart(image)]
        before = b'"'
    parts.append(TextPart(before + CLOSING))
    return CreateBody(tuple(parts), sum(part.length for part in parts))


def fingerprint(request: KontextRequest, images: Sequence[LoadedImage]) -> str:
    """Return a digest of all fields and of the contents of all images: equal requests have equal fingerprints.

    Returns:
        64 hexadecimal characters: the SHA-256 of canonical JSON.
    """
    content = {
        "model": request.model,
        "params": _collect_params(request),
        "images": [image.digest for image in images],
        **_collect_top_level(request),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _collect_params(request: KontextRequest) -> dict[str, object]:
    """Return the given fields except the images. A field that was not given is left out, never sent as null."""
    return {name: value for name in PLAIN_FIELDS if (value := getattr(request, name)) is not None}


def _collect_top_level(request: KontextRequest) -> dict[str, object]:
    """Return the given fields that are not the model's own: they stand beside ``model`` and ``input``."""
    given: dict[str, object] = {}
    if request.moderation is not None:
        given["moderation"] = request.moderation
    if request.metadata is not None:
        given["metadata"] = dict(request.metadata)
    return given
