"""Input images: which sources are accepted, and how their bytes are read.

Rules: PROTOCOL.md, "Create: the request". The modules, in the order in which a source passes them:

``sources``
    The types of an input image, and the checks that need no I/O: `check`.
``data_uris``
    Data URIs, decoded piece by piece.
``formats``
    The format of an image, detected from its bytes and not from its file name.
``loading``
    `load` and `load_reader`: open a source, validate it and compute its digest. `load` blocks: call it in a thread.
``spooling``
    A source that can be read only once, kept in memory or in a temporary file.
``pillow``
    Pillow images, as PNG.
``contents``
    The bytes of a loaded image while it is sent: in memory, in a text, or in a file.
``resize``
    `fit`: make an image small enough for the gateway.
"""

from kontext_async.images.contents import READ_AHEAD, LoadedImage
from kontext_async.images.formats import MAX_IMAGE_BYTES, detect_format, has_header, is_complete
from kontext_async.images.loading import load, load_reader
from kontext_async.images.resize import fit
from kontext_async.images.sources import (
    AsyncReader,
    ImageSource,
    OneShotReader,
    PartReader,
    check,
    is_async_reader,
    is_pillow,
    is_reader,
    is_url,
    normalize,
)

__all__ = [
    "MAX_IMAGE_BYTES",
    "READ_AHEAD",
    "AsyncReader",
    "ImageSource",
    "LoadedImage",
    "OneShotReader",
    "PartReader",
    "check",
    "detect_format",
    "fit",
    "has_header",
    "is_async_reader",
    "is_complete",
    "is_pillow",
    "is_reader",
    "is_url",
    "load",
    "load_reader",
    "normalize",
]
