"""The create request: PROTOCOL.md, "Create: the request". The only I/O is an image's own.

A body is a list of parts. Its length is known before it is sent, and it can be sent again from the start. Images are
encoded in base64 while they are sent, so that a body needs no memory beyond its images.

What is sent is encoded by orjson; the canonical JSON of a fingerprint is the standard library's, because fingerprints
of earlier versions are in stores and journals.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, TypeAlias

import orjson
from attrs import field, frozen
from pybase64 import b64encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kontext_async.images import LoadedImage
    from kontext_async.models import KontextRequest

__all__ = [
    "NO_BODY",
    "CreateBody",
    "ImagePart",
    "TextPart",
    "collect_params",
    "encode_body",
    "encode_create",
    "fingerprint",
]

PIECE = 48 * 1024
"""Bytes of an image that are encoded at once: divisible by three, and few enough not to block the event loop
(``python -m benchmarks --only uploads``)."""

TEXT_PIECE = 64 * 1024
"""Bytes of JSON text that are sent at once."""

PLAIN_FIELDS = ("prompt", "seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance")
IMAGE_FIELDS = ("input_image", "input_image_2", "input_image_3", "input_image_4")
CLOSING = b"}}]}"

DELETE = b"\x7f"
"""The one ASCII character that the standard library escapes and orjson does not."""

COMPACT = json.JSONEncoder(separators=(",", ":"))
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
"""The JSON of a fingerprint. It must never change."""


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
InlineImage: TypeAlias = "tuple[str, LoadedImage]"
"""An image whose bytes are sent, with its field."""


@frozen
class CreateBody:
    """The body of a create request.

    Attributes:
        length: The size of the body in bytes, with images in base64.
        whole: The body, if it is one piece of text; None if it is sent in several pieces.
    """

    _parts: tuple[Part, ...]
    length: int
    whole: bytes | None = field(default=None, repr=False)

    @property
    def parts(self) -> tuple[Part, ...]:
        """JSON text and images in turn, in the order in which they are sent. The last part is text."""
        return self._parts if self.whole is None else (TextPart(self.whole),)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body from its start, in pieces small enough to be sent one at a time."""
        for part in self.parts:
            yield from part.pieces()


NO_BODY = CreateBody((), 0)
"""The body of a request that has none."""


def encode_create(request: KontextRequest, images: Sequence[LoadedImage]) -> CreateBody:
    """Return the body of the create request for `request`, with its loaded input images."""
    params, inline = collect_params(request, images)
    content = {"model": request.model, **_collect_top_level(request), "input": [{"params": params}]}
    return encode_body(content, inline, CLOSING)


def collect_params(
    request: KontextRequest, images: Sequence[LoadedImage]
) -> tuple[dict[str, object], list[InlineImage]]:
    """Return the given fields of the model, image URLs among them, and the images whose bytes are sent."""
    params = _collect_params(request)
    inline: list[InlineImage] = []
    for name, image in zip(IMAGE_FIELDS, images, strict=False):
        if image.url is None:
            inline.append((name, image))
        else:
            params[name] = image.url
    return params, inline


def encode_body(content: dict[str, object], inline: Sequence[InlineImage] = (), closing: bytes = b"}") -> CreateBody:
    """Return a body: JSON, with images in base64 as further fields of its last object.

    Args:
        content: The JSON object.
        inline: The images, each with its field.
        closing: The end of the JSON text, before which the images stand.
    """
    text = _dump(content, COMPACT)
    if not inline and len(text) <= TEXT_PIECE:
        return CreateBody((), len(text), text)
    parts: list[Part] = []
    before = text.removesuffix(closing)
    for name, image in inline:
        parts += [TextPart(before + f',"{name}":"'.encode()), ImagePart(image)]
        before = b'"'
    parts.append(TextPart(before + closing))
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
    return hashlib.sha256(_dump(content, CANONICAL, orjson.OPT_SORT_KEYS)).hexdigest()


def _dump(content: dict[str, object], encoder: json.JSONEncoder, option: int | None = None) -> bytes:
    """Return what an encoder of the standard library returns, in a part of its time where the text is plain ASCII.

    Args:
        content: What to encode.
        encoder: The encoder.
        option: The options with which orjson does the same.
    """
    try:
        text = orjson.dumps(content, option=option)
        if text.isascii() and DELETE not in text:
            return text
    except orjson.JSONEncodeError:  # an integer of more than 64 bits
        pass
    return encoder.encode(content).encode()


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
