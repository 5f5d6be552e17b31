"""What may be passed as an input image; its bytes, its size and its kind, told by content and not by file name.

`check` looks at what is known without I/O, when a request is made. `load` opens a source and judges it, and may block:
the engine runs it in a thread. `fit` makes a picture fit that is too large. Rules: PROTOCOL.md, "Create: the request".
"""

from kontext_async.images.contents import AHEAD, LoadedImage
from kontext_async.images.fitting import fit
from kontext_async.images.kinds import MAX_IMAGE_BYTES, has_header, is_whole, kind_of
from kontext_async.images.loading import load, load_reader
from kontext_async.images.sources import (
    AsyncReader,
    ImageSource,
    PartReader,
    SingleUse,
    adopt,
    check,
    is_async_reader,
    is_pillow,
    is_reader,
    is_url,
)

__all__ = [
    "AHEAD",
    "MAX_IMAGE_BYTES",
    "AsyncReader",
    "ImageSource",
    "LoadedImage",
    "PartReader",
    "SingleUse",
    "adopt",
    "check",
    "fit",
    "has_header",
    "is_async_reader",
    "is_pillow",
    "is_reader",
    "is_url",
    "is_whole",
    "kind_of",
    "load",
    "load_reader",
]
