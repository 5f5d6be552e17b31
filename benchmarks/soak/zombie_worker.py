"""A process that generates one image by its key, and may stop itself at a step. `benchmarks.soak.zombie` continues it.

``python -m benchmarks.soak.zombie_worker KEY [--stop-at STEP] [--resend-uncertain] [--wait]`` reads ``KONTEXT_STORE``,
and prints the task ID or the name of the error.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import inspect
import io
import os
import random
import signal
import sys
from typing import TYPE_CHECKING, Any

from attrs import frozen
from PIL import Image

from kontext_async import KontextError, KontextSession
from kontext_async.engine.row_journal import RowJournal
from kontext_async.engine.stored_calls import StoredCalls
from kontext_async.engine.uploads import Upload
from kontext_async.settings import Settings, StoreSettings
from kontext_async.store.sql import applying, planning, store
from kontext_async.store.steps import Intended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kontext_async.store.rows import NewRow, Row, RowStep, StepResult
    from kontext_async.store.sql.transaction import Transaction

__all__ = ["LEASE", "STEPS", "Place"]

LEASE = 3.0


@frozen
class Place:
    """A call at which the process stops itself.

    Attributes:
        owner: The class of the method.
        method: The name of the method.
        after: Stop when the method returns; otherwise, before it is called.
        turn: The number of the call, from 1.
    """

    owner: type
    method: str
    after: bool = False
    turn: int = 1

    def __call__(self) -> None:
        """Replace the method by one that stops the process."""
        original = getattr(self.owner, self.method)
        calls = iter(range(1, 1 << 30))

        def stop(turn: int, *, after: bool) -> None:
            if turn == self.turn and after is self.after:
                stop_self()

        @functools.wraps(original)
        def call(*arguments: Any, **options: Any) -> Any:
            turn = next(calls)
            stop(turn, after=False)
            result = original(*arguments, **options)
            stop(turn, after=True)
            return result

        @functools.wraps(original)
        async def call_async(*arguments: Any, **options: Any) -> Any:
            turn = next(calls)
            stop(turn, after=False)
            result = await original(*arguments, **options)
            stop(turn, after=True)
            return result

        setattr(self.owner, self.method, call_async if inspect.iscoroutinefunction(original) else call)


@functools.cache
def stop_self() -> None:
    """Stop this process with SIGSTOP until somebody sends SIGCONT. The step may come again; it stops the first time."""
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_in_transaction() -> None:
    """Stop the process in the transaction that writes the intent, before its commit. It may create the row, too."""
    apply_steps, plan_rows = applying.apply_steps, planning.plan_rows

    def apply(transaction: Transaction, worker: int, steps: Sequence[RowStep]) -> list[StepResult]:
        results = apply_steps(transaction, worker, steps)
        if any(isinstance(each.step, Intended) for each in steps):
            stop_self()
        return results

    def plan(
        transaction: Transaction, run: int, new: Sequence[NewRow], worker: int | None, execution: int | None
    ) -> list[Row]:
        rows = plan_rows(transaction, run, new, worker, execution)
        if any(each.intended for each in new):
            stop_self()
        return rows

    setattr(store, apply_steps.__name__, apply)
    setattr(store, plan_rows.__name__, plan)


def stop_after_body() -> None:
    """Stop the process once the last piece of the body is handed over and before the response can be read."""
    original = Upload.__anext__

    async def next_piece(self: Upload) -> bytes:
        try:
            return await original(self)
        except StopAsyncIteration:
            stop_self()
            raise

    Upload.__anext__ = next_piece  # type: ignore[method-assign] # as above


STEPS: dict[str, Callable[[], None]] = {
    "before the intent": Place(RowJournal, "before_send"),
    "in the transaction of the intent": stop_in_transaction,
    "after the intent": Place(RowJournal, "before_send", after=True),
    "before the check of the first byte": Place(RowJournal, "check_before_first_byte"),
    "before the first byte": Place(RowJournal, "check_before_first_byte", after=True),
    "in the body": Place(Upload, "__anext__", turn=2),
    "after the body": stop_after_body,
    "after the response": Place(RowJournal, "accepted"),
    "after accepted": Place(RowJournal, "accepted", after=True),
    "before completed": Place(StoredCalls, "_heed_completed"),
    "before received": Place(StoredCalls, "receive"),
}
"""What stops the process, by the name of the step."""


def make_image() -> bytes:
    """Return an input image that is sent in several pieces: noise cannot be compressed. It is always the same."""
    side = 512
    noise = Image.frombytes("RGB", (side, side), random.Random(7).randbytes(side * side * 3))
    file = io.BytesIO()
    noise.save(file, "PNG")
    return file.getvalue()


async def generate(key: str, *, resend_uncertain: bool, wait: bool) -> str:
    """Generate one image, after a line of standard input if `wait`; return its task ID, or the name of the error."""
    settings = Settings(store=StoreSettings(lease=LEASE, beat=LEASE / 3))
    async with KontextSession(store=os.environ["KONTEXT_STORE"], settings=settings) as session:
        if wait:
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        try:
            generation = await session.generate(
                key, key=key, input_images=[make_image()], resend_uncertain=resend_uncertain
            )
        except KontextError as error:
            return type(error).__name__
        return generation.task_id


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.zombie_worker")
    parser.add_argument("key")
    parser.add_argument("--stop-at", choices=STEPS)
    parser.add_argument("--resend-uncertain", action="store_true")
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    if options.stop_at:
        STEPS[options.stop_at]()
    print(asyncio.run(generate(options.key, resend_uncertain=options.resend_uncertain, wait=options.wait)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
