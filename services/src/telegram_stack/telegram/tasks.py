"""Several endless things at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_failure(*endless: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends, cancel the others, raise what it raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in endless]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
