"""Requests from prompt files, and durable runs of them: interrupted runs resume, and no request is billed twice.

The modules, in the order in which a request passes them:

=============  =========================================================================================
`lines`        decodes a prompt file into lines
`tables`       splits the lines of ``.csv`` and ``.tsv`` files into records
`rows`         splits a prompt file into rows: ``.txt``, ``.jsonl``, ``.csv`` and ``.tsv``
`readers`      builds requests from the rows, and validates a file before it is used
`run`          `BulkRun`, the public class, which connects the modules below
`opening`      opens the run's directory: lock, journal and results
`lock`         admits one run at a time to the directory
`paths`        keeps the paths of a run absolute and inside its directory
`intake`       reads the input in chunks, and computes the fingerprints
`entries`      the request that was read, and its row in the journal
`occurrences`  counts equal requests of one input
`execution`    executes one input, and returns the outcomes as they complete
`states`       the states of a request, and the action that the next run takes for each
`budget`       decides whether one more request fits the cost limit
`outages`      decides what a run does in an outage: wait or stop
`errands`      executes one request: submits it, waits for it, saves its images
`submission`   records one submission in the journal before it is sent
`targets`      chooses the paths of images, and checks that saved images are intact
`names`        renders file names from a template
`journal`      stores every step of every request
`committer`    groups the steps into transactions
`database`     opens the journal's database connection
`examination`  checks an SQLite file before it is opened, and changes nothing in it
`schema`       the tables of the journal
`standing`     summarizes the journal: states, costs, open amounts
`reserve`      reserves disk space, so that a full disk loses no task ID
`telling`      builds the outcomes of requests that the run skips
`outcomes`     `BulkOutcome`, `BulkProgress`, `BulkReport`: the public results
`records`      converts rows and errors into JSON
`results`      appends to ``results.jsonl``
`sheet`        writes ``index.html``, the contact sheet
`rebuilding`   regenerates ``results.jsonl`` and ``index.html`` from the journal
`plan`         predicts the submissions and the cost of a run, without a submission
`errors`       the errors of durable runs
=============  =========================================================================================
"""

from kontext_async.bulk.errors import (
    CostUnknown,
    JournalFailed,
    JournalUnusable,
    RunLocked,
    RunRefused,
    RunStopped,
)
from kontext_async.bulk.outcomes import BulkOutcome, BulkProgress, BulkReport, UncertainRequest
from kontext_async.bulk.readers import (
    InvalidLine,
    RequestReader,
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
    "CostUnknown",
    "InvalidLine",
    "JournalFailed",
    "JournalUnusable",
    "RequestReader",
    "RunLocked",
    "RunRefused",
    "RunStopped",
    "UncertainRequest",
    "ValidationReport",
    "check_extra",
    "check_image_files",
    "read_requests",
    "validate_requests",
]
