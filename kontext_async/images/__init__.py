"""What may be passed as an input image; its bytes, its size and its kind, told by content and not by file name.

`check` looks at what is known without I/O, when a request is made. `load` opens a source and judges it, and may block:
the engine runs it in a thread. `fit` makes a picture fit that is too large. Rules: PROTOCOL.md, "Create: the request".
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
