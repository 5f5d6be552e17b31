"""``kontext-async bulk`` with a lease of three seconds, for soaks that kill it.

``python -m benchmarks.soak.bulk_worker ARGUMENTS`` takes the arguments of ``kontext-async``.
"""

from __future__ import annotations

import sys

from attrs import evolve

from kontext_async.cli import main
from kontext_async.cli.options import RunOptions
from kontext_async.settings import Settings, StoreSettings

LEASE = StoreSettings(lease=3.0, beat=1.0)


def shorten_lease() -> None:
    """Replace the settings of the command by the same with the short lease."""
    original = RunOptions.settings

    def settings(self: RunOptions) -> Settings:
        return evolve(original(self), store=LEASE)

    RunOptions.settings = settings  # type: ignore[method-assign] # there is no option for it


if __name__ == "__main__":
    shorten_lease()
    sys.exit(main())
