"""The gateway on loopback: checks, paints, bills and misbehaves over real HTTP, without a key."""

from kontext_async.emulator.app import Emulator
from kontext_async.emulator.context import RequestRecord
from kontext_async.emulator.faults import Fault, Faults
from kontext_async.emulator.kinds import ErrorShape, FaultKind, Operation
from kontext_async.emulator.ledger import CreateOutcome, Ledger, LedgerEntry
from kontext_async.emulator.timing import Distribution, ServiceTime

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
