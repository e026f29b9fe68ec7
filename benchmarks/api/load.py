"""An open-loop client: requests begin when they are due, however late the answers are; latency counts from then."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CONNECTIONS = 32
"""At most; fewer at low rates, where servers would close them between two requests."""
TOKEN = "token-of-the-benchmark"  # noqa: S105 - of servers that live for the benchmark


@dataclass(frozen=True)
class Answered:
    """What one rate gave; latencies are milliseconds. `refused` are answers other than 200."""

    rate: float
    answers: int
    refused: int
    p50: float
    p95: float
    p99: float


def ask(port: int, rate: float, seconds: float, channels: Sequence[int]) -> Answered:
    """The newest 50 messages of a channel, each time another, `rate` times a second for `seconds`."""
    return asyncio.run(_ask(port, rate, seconds, channels))


async def _ask(port: int, rate: float, seconds: float, channels: Sequence[int]) -> Answered:
    waiting: asyncio.Queue[tuple[float, int] | None] = asyncio.Queue()
    taken: list[tuple[float, bool]] = []
    connections = min(CONNECTIONS, round(rate))
    clients = [asyncio.create_task(_client(port, waiting, taken)) for _ in range(connections)]
    choice = random.Random(1)  # noqa: S311 - repeatable, no secret
    begun = time.perf_counter()
    for number in range(round(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        waiting.put_nowait((due, choice.choice(channels)))
    for _ in clients:
        waiting.put_nowait(None)
    await asyncio.gather(*clients)
    ordered = sorted(latency * 1000 for latency, _ in taken)
    p50, p95, p99 = (ordered[min(len(ordered) - 1, len(ordered) * part // 100)] for part in (50, 95, 99))
    return Answered(rate, len(taken), sum(not good for _, good in taken), p50, p95, p99)


async def _client(port: int, waiting: asyncio.Queue[Any], taken: list[tuple[float, bool]]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (wanted := await waiting.get()) is not None:
        due, channel = wanted
        target = f"/api/messages?channelId={channel}&limit=50"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {TOKEN}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        taken.append((time.perf_counter() - due, head.split(b" ", 2)[1] == b"200"))
    writer.close()
