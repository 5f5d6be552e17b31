"""Input images: which sources are accepted, and how their bytes are read.

Rules: PROTOCOL.md, "Create: the request". The modules, in the order in which a source passes them:

``sources``
    The types of an input image, and the checks that need no I/O: `check`.
``urls``
    The URLs that the gateway downloads, and those that name a file.
``data_uris``
    Data URIs, decoded piece by piece.
``formats``
    The format of an image, detected from its bytes and not from its file name.
``ends``
    The end of an image, found by its structure: a downloaded image is whole, or truncated.
``loading``
    `load` and `load_reader`: open a source, validate it and compute its digest. `load` blocks: call it in a thread.
``files``
    Paths, file objects, and objects that open like a path. Blocks.
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
from kontext_async.images.data_uris import data_uri_size, is_data_uri
from kontext_async.images.ends import WITHOUT_END, find_end
from kontext_async.images.files import resolve_path
from kontext_async.images.formats import (
    ACCEPTED_FORMATS,
    EXTENSIONS,
    FORMAT_NAMES,
    MAX_IMAGE_BYTES,
    describe_other_format,
    detect_any_format,
    detect_format,
    has_header,
    is_complete,
    seems_complete,
)
from kontext_async.images.loading import load, load_reader
from kontext_async.images.resize import fit
from kontext_async.images.sources import (
    AsyncReader,
    ImageSource,
    OneShotReader,
    Openable,
    PartReader,
    SyncReader,
    check,
    is_async_reader,
    is_path,
    is_pillow,
    is_reader,
    is_single,
    normalize,
)
from kontext_async.images.urls import has_scheme, is_url

__all__ = [
    "ACCEPTED_FORMATS",
    "EXTENSIONS",
    "FORMAT_NAMES",
    "MAX_IMAGE_BYTES",
    "READ_AHEAD",
    "WITHOUT_END",
    "AsyncReader",
    "ImageSource",
    "LoadedImage",
    "OneShotReader",
    "Openable",
    "PartReader",
    "SyncReader",
    "check",
    "data_uri_size",
    "describe_other_format",
    "detect_any_format",
    "detect_format",
    "find_end",
    "fit",
    "has_header",
    "has_scheme",
    "is_async_reader",
    "is_complete",
    "is_data_uri",
    "is_path",
    "is_pillow",
    "is_reader",
    "is_single",
    "is_url",
    "load",
    "load_reader",
    "normalize",
    "resolve_path",
    "seems_complete",
]
