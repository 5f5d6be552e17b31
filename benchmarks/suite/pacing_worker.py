"""Generates the images of one batch in its own process, for `pacing`, and prints how that went.

``python -P pacing_worker.py ADDRESS TASKS``, with a checkout in PYTHONPATH. The script prints a line when its session
is ready, and reads the start, in unix seconds, from its standard input: processes start at different speeds. It does
not import `benchmarks`, because that would come from the checkout.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import kontext_async
from kontext_async import KontextSession

__all__: list[str] = []


async def run_batch(address: str, tasks: int) -> dict[str, Any]:
    """Generate so many images, and return the end in unix seconds, and the number of failures and of 429s."""
    failures = 0
    async with KontextSession("emulator-key", base_url=address) as session:
        print("ready", flush=True)
        start = float(await asyncio.to_thread(sys.stdin.readline))
        await asyncio.sleep(start - time.time())
        async for outcome in session.generate_many([f"fox {number}" for number in range(tasks)]):
            failures += not outcome.ok
        ended_at = time.time()
        throttled = session.statistics().throttled
    path = str(Path(kontext_async.__file__).parents[1])
    return {"ended_at": ended_at, "failures": failures, "throttled": throttled, "path": path}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run_batch(sys.argv[1], int(sys.argv[2])))))
