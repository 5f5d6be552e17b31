"""The create request: PROTOCOL.md, "Create: the request". No I/O in here.

A body is a list of pieces. Its length is known before it is sent, and it can be sent again from the start. Images
are put into base64 while they are sent, so that a body takes no memory beyond its images.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kontext_async.images import LoadedImage
    from kontext_async.models import KontextRequest

__all__ = ["CreateBody", "encode_create", "fingerprint"]

PIECE = 48 * 1024
"""Bytes of an image that are encoded at once: divisible by three, small enough not to hold the loop (FIGURES.md)."""

PLAIN_FIELDS = ("prompt", "seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance")
CLOSING = b"}}]}"


@frozen
class CreateBody:
    """The body of a create request.

    Attributes:
        parts: JSON text and images in turn, in the order in which they are sent.
        length: The size of the whole, in bytes, images in base64.
    """

    parts: tuple[bytes | LoadedImage, ...] = field(repr=False)
    length: int

    def pieces(self) -> Iterator[bytes]:
        """The body from its start, in pieces small enough to be sent one at a time."""
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
                continue
            view = memoryview(part.data)
            for start in range(0, len(view), PIECE):
                yield base64.b64encode(view[start : start + PIECE])


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
    parts: list[bytes | LoadedImage] = [text.removesuffix(CLOSING)]
    for name, image in inline:
        parts += [f',"{name}":"'.encode(), image, b'"']
    parts.append(CLOSING)
    parts = _joined(parts)
    return CreateBody(tuple(parts), sum(_length(part) for part in parts))


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


def _joined(parts: list[bytes | LoadedImage]) -> list[bytes | LoadedImage]:
    """The same parts, with neighbouring texts made one: a body without images is a single piece."""
    joined: list[bytes | LoadedImage] = []
    for part in parts:
        if isinstance(part, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _length(part: bytes | LoadedImage) -> int:
    return len(part) if isinstance(part, bytes) else 4 * ((len(part.data) + 2) // 3)
