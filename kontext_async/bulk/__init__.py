"""Many requests from a file, and durable runs of them, which go on where they were left."""

from kontext_async.bulk.errors import (
    CostUnknown,
    JournalFailed,
    JournalUnusable,
    RunLocked,
    RunRefused,
    RunStopped,
)
from kontext_async.bulk.outcomes import BulkOutcome, BulkProgress, BulkReport, Uncertain
from kontext_async.bulk.readers import (
    InvalidLine,
    RequestReader,
    Survey,
    check_image_files,
    read_requests,
    survey_requests,
)
from kontext_async.bulk.run import BulkRun, check_extra

__all__ = [
    "BulkOutcome",
    "BulkProgress",
    "BulkReport",
    "BulkRun",
    "CostUnknown",
    "InvalidLine",
    "JournalFailed",
    "JournalUnusable",
    "RequestReader",
    "RunLocked",
    "RunRefused",
    "RunStopped",
    "Survey",
    "Uncertain",
    "check_extra",
    "check_image_files",
    "read_requests",
    "survey_requests",
]
