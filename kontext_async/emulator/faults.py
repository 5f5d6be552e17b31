"""Faults by rate or by script. Pure: the random numbers are an argument.

A `Fault` describes one misbehavior, and `Faults` decides which request meets which fault. The table of all kinds is
`FAULT_SPECS`, in the module `fault_specs`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from attrs import converters, evolve, field, frozen

from kontext_async.emulator.fault_kinds import ErrorShape, FaultKind, Operation
from kontext_async.emulator.fault_specs import FAULT_SPECS, FIXED_ACCEPTANCE_KINDS
from kontext_async.emulator.validators import is_number

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping


def _to_kind(value: FaultKind | str) -> FaultKind:
    try:
        return FaultKind(value)
    except ValueError:
        raise ValueError(f"kind must be one of {', '.join(FaultKind)}, not {value!r}") from None


def _to_operations(value: Iterable[Operation | str] | str | None) -> frozenset[Operation] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    try:
        return frozenset(Operation(name) for name in names)
    except ValueError as error:
        raise ValueError(f"on must name operations ({', '.join(Operation)}): {error}") from None


@frozen(kw_only=True)
class Fault:
    """One misbehavior. `None` in a field stands for the default in the table `FAULT_SPECS`.

    Attributes:
        kind: The kind of fault.
        on: The operations that a rate of this fault applies to; None for all operations of its kind.
        seconds: The duration in seconds, for kinds that have one.
        status: The HTTP status of the response, for kinds that send one.
        retry_after: The Retry-After to send: seconds as a number, or any text verbatim, such as an HTTP date
            or nonsense; "" for none.
        retry_after_date: Send `retry_after` seconds as an HTTP date instead of a number.
        shape: The shape of the error body.
        text: A body to send verbatim, in place of any shape.
        accepted: Whether a create request with this fault is accepted (and billed) all the same.
        code: The error's code; None for the kind's own.
        message: The error's message; None for the kind's own.
        variant: The variant of the kind; None draws one.
        location: The target of a redirect, or the odd URL; None for the kind's own.
        ranges: Whether a download that is cut halfway can be resumed with a Range request.

    Raises:
        ValueError: A field is invalid; the text names it.
    """

    kind: FaultKind = field(converter=_to_kind)
    on: frozenset[Operation] | None = field(default=None, converter=_to_operations)
    seconds: float | None = None
    status: int | None = None
    retry_after: float | str | None = None
    retry_after_date: bool = False
    shape: ErrorShape | None = field(default=None, converter=converters.optional(ErrorShape))
    text: str | None = None
    accepted: bool | None = None
    code: str | None = None
    message: str | None = None
    variant: str | None = None
    location: str | None = None
    ranges: bool = True

    def __attrs_post_init__(self) -> None:
        spec = FAULT_SPECS[self.kind]
        if self.on is not None and not self.on <= spec.operations:
            raise ValueError(f"on: {self.kind} applies to {', '.join(sorted(spec.operations))} only")
        if self.seconds is not None and (not is_number(self.seconds) or self.seconds < 0):
            raise ValueError(f"seconds must be at least 0, not {self.seconds!r}")
        if self.status is not None and not 200 <= self.status <= 599:  # noqa: PLR2004 - HTTP's own bounds
            raise ValueError(f"status must be between 200 and 599, not {self.status!r}")
        if self.accepted not in (None, spec.accepted) and self.kind in FIXED_ACCEPTANCE_KINDS:
            raise ValueError(f"accepted must be {spec.accepted} for {self.kind}, or left out")
        if self.variant is not None and self.variant not in spec.variants:
            raise ValueError(f"variant must be one of {', '.join(spec.variants) or 'none'}, not {self.variant!r}")

    @property
    def operations(self) -> frozenset[Operation]:
        """The operations that this fault applies to."""
        return FAULT_SPECS[self.kind].operations if self.on is None else self.on

    @property
    def lets_accept(self) -> bool:
        """Whether a create request with this fault is accepted."""
        return FAULT_SPECS[self.kind].accepted if self.accepted is None else self.accepted

    def resolve(self, rng: random.Random) -> Fault:
        """Return the same fault with the defaults of its kind filled in, and with a variant drawn from `rng`."""
        spec = FAULT_SPECS[self.kind]
        variant = self.variant
        if variant is None and spec.variants:
            variant = rng.choice(spec.variants)
        return evolve(
            self,
            seconds=spec.seconds if self.seconds is None else self.seconds,
            status=spec.status if self.status is None else self.status,
            retry_after=spec.retry_after if self.retry_after is None else self.retry_after,
            shape=spec.shape if self.shape is None else self.shape,
            accepted=self.lets_accept,
            variant=variant,
        )


def to_fault(value: Fault | FaultKind | str) -> Fault:
    """Convert a kind, or its name, to a fault with the defaults of that kind.

    Raises:
        ValueError: There is no such kind.
    """
    return value if isinstance(value, Fault) else Fault(kind=_to_kind(value))


class Faults:
    """Decides which request meets which fault. Rates and scripts can change while the emulator runs.

    A script has precedence: each request of an operation consumes the next entry of that operation's script, and an
    entry `None` lets that request behave. After the end of the script the rates apply: each request draws at most one
    fault, so the rates of one operation add up to 1 at most.

    Args:
        rates: The probability of each fault, 0 to 1 per request of the operations that it applies to. Keys are
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
        scripted = {str(name): len(script) for name, script in self._scripts.items() if script}
        return f"<Faults rates={len(self._rates)} scripted={scripted}>"

    @property
    def rates(self) -> Mapping[Any, float]:
        """The current rates; assign a mapping to replace them all."""
        return dict(self._rates)

    @rates.setter
    def rates(self, rates: Mapping[Any, float]) -> None:
        checked = {to_fault(key): _check_rate(key, rate) for key, rate in rates.items()}
        self._table = _build_cumulative_table(checked)
        self._rates = checked

    def set_rate(self, fault: Fault | FaultKind | str, rate: float) -> None:
        """Change the rate of one fault and keep the others.

        Raises:
            ValueError: As for the constructor; the rates stay unchanged then.
        """
        self.rates = {**self._rates, to_fault(fault): rate}

    def script(self, operation: Operation | str, faults: Iterable[Fault | FaultKind | str | None]) -> None:
        """Append to an operation's script: one entry per request, `None` for one that behaves.

        Raises:
            ValueError: The operation is unknown, or a fault does not apply to it.
        """
        target = Operation(operation)
        entries = [None if fault is None else to_fault(fault) for fault in faults]
        for entry in entries:
            if entry is not None and target not in entry.operations:
                raise ValueError(f"{entry.kind} does not apply to {target}")
        self._scripts[target].extend(entries)

    def waiting(self, operation: Operation | str) -> int:
        """Return the number of remaining entries in an operation's script."""
        return len(self._scripts[Operation(operation)])

    def clear(self) -> None:
        """Remove all scripts and rates: every later request behaves."""
        for script in self._scripts.values():
            script.clear()
        self.rates = {}

    def draw(self, operation: Operation, rng: random.Random) -> Fault | None:
        """Draw the fault of the next request of `operation`, resolved; None when the request behaves."""
        script = self._scripts[operation]
        if script:
            scripted = script.popleft()
            return None if scripted is None else scripted.resolve(rng)
        table = self._table.get(operation)
        if not table:
            return None
        mark = rng.random()
        return next((fault.resolve(rng) for limit, fault in table if mark < limit), None)


def _check_rate(key: object, rate: float) -> float:
    if not is_number(rate) or not 0 <= rate <= 1:
        raise ValueError(f"rates: {key!s} must be between 0 and 1, not {rate!r}")
    return float(rate)


def _build_cumulative_table(rates: Mapping[Fault, float]) -> dict[Operation, list[tuple[float, Fault]]]:
    table: dict[Operation, list[tuple[float, Fault]]] = {}
    for operation in Operation:
        total = 0.0
        for fault, rate in rates.items():
            if rate and operation in fault.operations:
                total += rate
                table.setdefault(operation, []).append((total, fault))
        if total > 1 + 1e-9:
            raise ValueError(f"rates: the rates of {operation} add up to {total:g}, which is more than 1")
    return table
