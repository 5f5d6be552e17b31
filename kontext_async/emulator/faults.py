"""What misbehaves, by rate or by script. Pure: random numbers come in, decisions go out.

A `Fault` describes one misbehaviour, `Faults` decides which request meets which. The table of all kinds is
`KINDS`, in the module `kinds`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

from kontext_async.emulator.checks import is_number
from kontext_async.emulator.kinds import FIXED, KINDS, ErrorShape, FaultKind, Operation

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping


def _kind(value: FaultKind | str) -> FaultKind:
    try:
        return FaultKind(value)
    except ValueError:
        raise ValueError(f"kind must be one of {', '.join(FaultKind)}, not {value!r}") from None


def _operations(value: Iterable[Operation | str] | str | None) -> frozenset[Operation] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    try:
        return frozenset(Operation(name) for name in names)
    except ValueError as error:
        raise ValueError(f"on must name operations ({', '.join(Operation)}): {error}") from None


@attrs.frozen(kw_only=True)
class Fault:
    """One misbehaviour. `None` in a field means: as the table `KINDS` has it.

    Attributes:
        kind: What happens.
        on: The operations that a rate of this fault applies to; None for all that its kind belongs to.
        seconds: Its duration in seconds, where it has one.
        status: The HTTP status to answer, where one is answered.
        retry_after: The Retry-After to send: seconds as a number, or any text verbatim, such as an HTTP date
            or nonsense; "" for none.
        retry_after_date: Send `retry_after` seconds as an HTTP date instead of a number.
        shape: The shape of the error body.
        text: A body to send verbatim, in place of any shape.
        accepted: Whether a create that meets it is accepted (and billed) all the same.
        code: The error's code.
        message: The error's message.
        variant: Which variant of the kind; None draws one.
        location: Where a redirect leads; None for the emulator's own other origin.
        ranges: Whether a download that is cut half-way can be resumed with a Range request.

    Raises:
        ValueError: A field does not fit; the text names it.
    """

    kind: FaultKind = attrs.field(converter=_kind)
    on: frozenset[Operation] | None = attrs.field(default=None, converter=_operations)
    seconds: float | None = None
    status: int | None = None
    retry_after: float | str | None = None
    retry_after_date: bool = False
    shape: ErrorShape | None = attrs.field(default=None, converter=attrs.converters.optional(ErrorShape))
    text: str | None = None
    accepted: bool | None = None
    code: str = "002014001"
    message: str = "generation failed"
    variant: str | None = None
    location: str | None = None
    ranges: bool = True

    def __attrs_post_init__(self) -> None:
        row = KINDS[self.kind]
        if self.on is not None and not self.on <= row.operations:
            raise ValueError(f"on: {self.kind} belongs to {', '.join(sorted(row.operations))} only")
        if self.seconds is not None and (not is_number(self.seconds) or self.seconds < 0):
            raise ValueError(f"seconds must be at least 0, not {self.seconds!r}")
        if self.status is not None and not 200 <= self.status <= 599:  # noqa: PLR2004 - HTTP's own bounds
            raise ValueError(f"status must be between 200 and 599, not {self.status!r}")
        if self.accepted not in (None, row.accepted) and self.kind in FIXED:
            raise ValueError(f"accepted must be {row.accepted} for {self.kind}, or left out")
        if self.variant is not None and self.variant not in row.variants:
            raise ValueError(f"variant must be one of {', '.join(row.variants) or 'none'}, not {self.variant!r}")

    @property
    def operations(self) -> frozenset[Operation]:
        """The operations that it can strike."""
        return KINDS[self.kind].operations if self.on is None else self.on

    @property
    def lets_accept(self) -> bool:
        """Whether a create that meets it is accepted."""
        return KINDS[self.kind].accepted if self.accepted is None else self.accepted

    def settled(self, rng: random.Random) -> Fault:
        """The same fault with everything that the table or chance decides filled in."""
        row = KINDS[self.kind]
        variant = self.variant
        if variant is None and row.variants:
            variant = rng.choice(row.variants)
        return attrs.evolve(
            self,
            seconds=row.seconds if self.seconds is None else self.seconds,
            status=row.status if self.status is None else self.status,
            retry_after=row.retry_after if self.retry_after is None else self.retry_after,
            shape=row.shape if self.shape is None else self.shape,
            accepted=self.lets_accept,
            variant=variant,
        )


def as_fault(value: Fault | FaultKind | str) -> Fault:
    """Take a kind, or its name, as a fault with the table's values.

    Raises:
        ValueError: There is no such kind.
    """
    return value if isinstance(value, Fault) else Fault(kind=_kind(value))


class Faults:
    """Decides which request misbehaves, and how. May be changed while the emulator runs.

    Scripts go first: each request of an operation takes the next entry of that operation's script, and
    `None` there means that this one behaves. When a script is at its end, rates apply: each request draws
    at most one fault, so the rates of one operation add up to 1 at most.

    Args:
        rates: How often each fault strikes, 0 to 1 per request of the operations it belongs to. Keys are
            kinds, their names, or faults with their own values.

    Raises:
        ValueError: A rate is not between 0 and 1, or the rates of one operation add up to more than 1.

    Example:
        >>> from kontext_async.emulator import Fault, FaultKind, Faults
        >>> faults = Faults({FaultKind.CUT: 0.01, Fault(kind=FaultKind.SLOW, on="status", seconds=0.2): 0.05})
        >>> faults.script("create", [FaultKind.CUT_AFTER_ACCEPT, None])
    """

    def __init__(self, rates: Mapping[Any, float] | None = None) -> None:
        self._scripts: dict[Operation, deque[Fault | None]] = {operation: deque() for operation in Operation}
        self._rates: dict[Fault, float] = {}
        self._table: dict[Operation, list[tuple[float, Fault]]] = {}
        self.rates = {} if rates is None else rates

    def __repr__(self) -> str:
        waiting = {str(name): len(script) for name, script in self._scripts.items() if script}
        return f"<Faults rates={len(self._rates)} scripted={waiting}>"

    @property
    def rates(self) -> Mapping[Any, float]:
        """The rates in force; assign a mapping to replace them all."""
        return dict(self._rates)

    @rates.setter
    def rates(self, rates: Mapping[Any, float]) -> None:
        settled = {as_fault(key): _rate(key, rate) for key, rate in rates.items()}
        self._table = _cumulative(settled)
        self._rates = settled

    def set_rate(self, fault: Fault | FaultKind | str, rate: float) -> None:
        """Change the rate of one fault and leave the others.

        Raises:
            ValueError: As for the constructor; nothing is changed then.
        """
        self.rates = {**self._rates, as_fault(fault): rate}

    def script(self, operation: Operation | str, faults: Iterable[Fault | FaultKind | str | None]) -> None:
        """Add to the end of an operation's script: one entry per request, `None` for one that behaves.

        Raises:
            ValueError: The operation is unknown, or a fault does not belong to it.
        """
        target = Operation(operation)
        entries = [None if fault is None else as_fault(fault) for fault in faults]
        for entry in entries:
            if entry is not None and target not in entry.operations:
                raise ValueError(f"{entry.kind} does not belong to {target}")
        self._scripts[target].extend(entries)

    def waiting(self, operation: Operation | str) -> int:
        """How many entries of an operation's script are still to be played."""
        return len(self._scripts[Operation(operation)])

    def clear(self) -> None:
        """Forget all scripts and rates: from here on everything behaves."""
        for script in self._scripts.values():
            script.clear()
        self.rates = {}

    def draw(self, operation: Operation, rng: random.Random) -> Fault | None:
        """Decide what the next request of `operation` meets, with everything settled; None: it behaves."""
        script = self._scripts[operation]
        if script:
            scripted = script.popleft()
            return None if scripted is None else scripted.settled(rng)
        table = self._table.get(operation)
        if not table:
            return None
        mark = rng.random()
        return next((fault.settled(rng) for limit, fault in table if mark < limit), None)


def _rate(key: object, rate: float) -> float:
    if not is_number(rate) or not 0 <= rate <= 1:
        raise ValueError(f"rates: {key!s} must be between 0 and 1, not {rate!r}")
    return float(rate)


def _cumulative(rates: Mapping[Fault, float]) -> dict[Operation, list[tuple[float, Fault]]]:
    table: dict[Operation, list[tuple[float, Fault]]] = {}
    for operation in Operation:
        total = 0.0
        for fault, rate in rates.items():
            if rate and operation in fault.operations:
                total += rate
                table.setdefault(operation, []).append((total, fault))
        if total > 1 + 1e-9:
            raise ValueError(f"rates: those of {operation} add up to {total:g}, which is more than 1")
    return table
