"""Requests from prompt files, and durable runs of them: interrupted runs resume, and no request is billed twice.

The modules, in the order in which a request passes them:

================  ======================================================================================
`lines`           decodes a prompt file into lines
`tables`          splits the lines of ``.csv`` and ``.tsv`` files into records
`prompt_formats`  splits a prompt file into rows: ``.txt``, ``.jsonl``, ``.csv`` and ``.tsv``
`prompt_files`    builds requests from the rows, and validates a file before it is used
`run`             `BulkRun`, the public class, which connects the modules below
`directory`       opens the run's directory: the lock, the run file, and what a killed run left
`lock`            admits one run at a time to the directory
`paths`           keeps the paths of a run absolute and inside its directory
`input`           reads the input in chunks, and computes the keys of the requests
`runner`          executes one input, and returns the outcomes as they complete
`states`          what a run does with a row that it reads, and what an error means for a row
`deferred`        holds the requests that other workers of a shared run have in hand
`admission`       waits until the cost limit admits one more request
`outages`         decides what a run does in an outage: wait or stop
`stop_switch`     stops a run
`item`            one request of a run, while the run has it in hand
`item_runner`     executes one request: submits it, waits for it, saves its images
`filenames`       renders file names, allocates paths, and checks that saved images are intact
`records`         converts requests into rows, and rows into outcomes and JSON
`models`          `BulkOutcome`, `BulkProgress`, `BulkReport`, `RunPlan`: the public results
`results`         writes ``results.jsonl``
`result_lines`    reads the lines of ``results.jsonl`` that earlier runs wrote
`contact_sheet`   writes ``index.html``, and regenerates both reports from the store
`dry_run`         predicts the submissions and the cost of a run, without a submission
`errors`          the errors of durable runs
================  ======================================================================================
"""

from kontext_async.bulk.errors import ReportUnwritable, RunLocked, RunRefused, RunStopped
from kontext_async.bulk.models import BulkOutcome, BulkProgress, BulkReport, RunPlan, UncertainRequest
from kontext_async.bulk.prompt_files import (
    InvalidLine,
    RequestReader,
    ValidationProgress,
    ValidationReport,
    check_image_files,
    read_requests,
    validate_requests,
)
from kontext_async.bulk.run import BulkRun, check_extra

__all__ = [
    "BulkOutcome",
    "BulkProgress",
    "BulkReport",
    "BulkRun",
    "InvalidLine",
    "ReportUnwritable",
    "RequestReader",
    "RunLocked",
    "RunPlan",
    "RunRefused",
    "RunStopped",
    "UncertainRequest",
    "ValidationProgress",
    "ValidationReport",
    "check_extra",
    "check_image_files",
    "read_requests",
    "validate_requests",
]
