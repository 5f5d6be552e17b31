"""The pools of models that share a limit on unfinished tasks, and the ceiling of each. No await, no clock.

A gateway may allow fewer unfinished tasks of one model than of the others. Each pool of models then has an adaptive
limit of its own (`concurrency`), so that requests that wait in a full pool do not hold up those of another.

==========================================================  ==========================================================
the ceiling of a pool is                                    if
==========================================================  ==========================================================
the largest number of `Limits.max_in_flight_by_model`       that has a model of the pool
`Limits.max_in_flight`                                      it is the common pool, of all models without one of their
                                                            own
what the gateway documents, or `Limits.max_in_flight` if    it is another pool
that is lower
==========================================================  ==========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.settings import Limits

__all__ = ["Pool", "find_ceiling"]


class Pool(Protocol):
    """Models that share one limit on unfinished tasks."""

    @property
    def name(self) -> str:
        """The name of the pool."""
        ...

    @property
    def max_in_flight(self) -> int:
        """The number of unfinished tasks that the gateway documents."""
        ...


def find_ceiling(pool: Pool, limits: Limits, *, common: Pool, pool_of: Callable[[str], Pool]) -> int:
    """Return the most unfinished tasks of a pool, by the table above.

    Args:
        pool: The pool.
        limits: The user's limits.
        common: The pool of all models that have none of their own.
        pool_of: Returns the pool of a model.
    """
    given = [most for model, most in limits.max_in_flight_by_model.items() if pool_of(model).name == pool.name]
    if given:
        return max(given)
    return limits.max_in_flight if pool.name == common.name else min(pool.max_in_flight, limits.max_in_flight)
