import asyncio
import time

import pytest

from kontext_async.emulator.painting.image_cache import ImageCache
from kontext_async.emulator.painting.painter import Brief

pytestmark = pytest.mark.anyio


async def test_the_image_cache_stays_within_its_bound() -> None:
    cache = ImageCache(max_bytes=6000)
    briefs = [Brief(prompt="x", seed=seed, width=80, height=80) for seed in range(6)]
    async with asyncio.TaskGroup() as group:
        same = [group.create_task(cache.get_image(briefs[0])) for _ in range(3)]
    assert len({task.result() for task in same}) == 1
    assert "kept=1" in repr(cache)
    for brief in briefs:
        await cache.get_image(brief)
    assert cache._bytes == sum(len(data) for data in cache._kept.values()) <= 6000
    assert briefs[-1] in cache._kept
    work = cache.run_in_thread(lambda: time.sleep(0.01))
    await asyncio.sleep(0.005)
    cache.close()
    await work
    cache.close()


async def test_an_image_that_cannot_be_painted_is_not_kept() -> None:
    cache = ImageCache()
    with pytest.raises(ValueError):  # noqa: PT011 - the message is Pillow's
        await cache.get_image(Brief(prompt="x", seed=0, width=-1, height=8))
    assert "kept=0" in repr(cache)
    cache.close()
