"""The urgency of polls at the end of a batch: delay is worth more there than in the middle. Pure.

`Polling.poll_cost` prices the delay of one task: c seconds of it are worth one poll. For a batch that waits for K
slots, a second of delay leaves one of them idle, and moves the end of the batch by 1 / K seconds. So the setting also
prices the end of the batch: one second of it is worth K seconds of one task, which is K / c polls.

Once no request waits, an idle slot holds up nothing. The delay of a task then moves the end of the batch only if no
other task ends later, and then by its whole length. With n tasks pending, n - 1 others are expected to end later, but
for those whose end no poll has seen yet; by Poisson's approximation, none of them does with the probability exp(1 - n).
So a second of delay of one task is worth one second for its own outcome and, with that probability, K - 1 seconds for
the others of the batch:

    urgency = 1 + (K - 1) exp(1 - n)

and one poll may cost c / urgency seconds of delay. The last task of 1000 is polled in gaps 30 times as short, down to
`Polling.min_interval`; with ten left, a poll costs what it did. When a task is found ended, the price rises for the
others, and their polls are moved forward at once: what one of them was late until then cost the batch nothing.

Only the last handful of tasks is polled more often, so the batch takes about as many polls as before. Each of n tasks
is the last one with probability 1 / n, but the urgency K / n, which follows from that alone, also pays for delays that
a later end hides: it costs a quarter more polls for the same end (``python -m benchmarks --only batch_end``).

K is the number of tasks that were pending when the last request was accepted: from then on the batch drains. Under a
steady load of few tasks there is no end: each acceptance makes K what is pending then, and the urgency stays near 1.
For a single task, K = 1 and the urgency is 1.
"""

from __future__ import annotations

import math

from attrs import define, field

__all__ = ["BatchEnd"]

STEP = 4.0
"""The urgency is a power of this: gaps halve from one to the next, and few schedules have to be computed."""


@define
class BatchEnd:
    """Follows how many tasks are pending, and says how urgent polls are."""

    _at_last_acceptance: int = field(default=0, init=False)

    def record_accepted(self, pending: int) -> None:
        """Record that a task was accepted or attached, with which so many are pending."""
        self._at_last_acceptance = pending

    def urgency(self, pending: int, *, more_to_come: bool) -> float:
        """Return the worth of a second of delay of one task, relative to what the settings say: at least 1.

        Args:
            pending: The tasks that are polled.
            more_to_come: True if requests wait for a slot, or for their acceptance.
        """
        if more_to_come or pending < 1:
            return 1.0
        value = 1 + (self._at_last_acceptance - 1) * math.exp(1 - pending)
        return STEP ** max(0, round(math.log(value, STEP))) if value > 1 else 1.0
