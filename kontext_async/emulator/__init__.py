"""The gateway on loopback, for trying, testing and benchmarking without a key and without paying.

It checks, paints, bills and misbehaves over real HTTP. The rooms, in the order in which a request passes; those outside
of the two folders are pure, and get the time and random numbers as arguments:

- `http`: the servers and their handlers, with aiohttp. The only place that awaits.
- `faults`: `Faults` decides which request meets which `Fault`.
- `fault_kinds`: every kind of fault, by name.
- `fault_specs`: the table of all kinds: their operations and their defaults.
- `validation`: the strict reading of a create request's body.
- `world`: accounts, limits, tasks and bills.
- `service_times`: the distributions of the seconds that tasks take.
- `ledger`: every create request, its outcome and its cost.
- `task_json`: the JSON about tasks and prices, in the plain and in the queue dialect.
- `bfl_json`: the JSON of Black Forest Labs' API: tasks, refusals and webhooks.
- `bfl_validation`: the strict reading of a create request there.
- `error_bodies`: the bodies of HTTP errors in every shape, and Retry-After.
- `contracts`: the JSON about models, their contracts and the balance.
- `corruption`: odd, damaged and wrong JSON in place of a good response.
- `odd_dialects`: odd JSON in the queue dialect and in Black Forest Labs' dialect, and odd addresses.
- `hostile_json`: good JSON with hostile contents: keys, control characters, costs and URLs.
- `foreign_texts`: the API key in every disguise, and control characters.
- `file_faults`: the faults of downloads.
- `signed_urls`: result URLs that expire.
- `ranges`: the Range header.
- `painting`: the images, with Pillow.
- `validators`: validators and converters of the constructors' arguments.
"""

from kontext_async.emulator.fault_kinds import ErrorShape, FaultKind, Operation
from kontext_async.emulator.faults import Fault, Faults
from kontext_async.emulator.http.app import Emulator
from kontext_async.emulator.http.state import RequestRecord
from kontext_async.emulator.ledger import CreateOutcome, Ledger, LedgerEntry
from kontext_async.emulator.service_times import Distribution, ServiceTime

__all__ = [
    "CreateOutcome",
    "Distribution",
    "Emulator",
    "ErrorShape",
    "Fault",
    "FaultKind",
    "Faults",
    "Ledger",
    "LedgerEntry",
    "Operation",
    "RequestRecord",
    "ServiceTime",
]
