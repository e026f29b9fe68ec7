"""What dashboards ask: the legacy overview, queue, summary and settings, and the health of each channel."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api import params
from telegram_stack.api.answers import Success, success
from telegram_stack.api.config import ApiConfig
from telegram_stack.api.errors import ApiError
from telegram_stack.api.failures import Failure, list_failures
from telegram_stack.api.gateway import BASE
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param, Query
from telegram_stack.api.shapes import number_text
from telegram_stack.api.tokens import Scope
from telegram_stack.database import Connection, Pool, transaction

PREVIEW, PREVIEW_MAXIMUM = 20, 1000
LIMIT = Param("limit", params.integer(1, PREVIEW_MAXIMUM), "How many at most", default=PREVIEW)

_COUNTS = """
SELECT (SELECT coalesce(sum(messages), 0) FROM telegram.messages_daily)::bigint AS messages,
  (SELECT coalesce(sum(messages), 0) FROM telegram.messages_hourly WHERE bucket >= now() - interval '1 day')::bigint
    AS messages_last_day,
  (SELECT count(*) FROM telegram.channels) AS channels,
  (SELECT count(*) FROM telegram.channels WHERE is_active) AS channels_active,
  (SELECT count(*) FROM telegram.failures WHERE replayed_at IS NULL) AS failures_waiting
"""
_STATES = """
SELECT status, sum(messages)::bigint FROM telegram.message_processing_stats WHERE consumer = %s GROUP BY status
"""


class Counts(msgspec.Struct, rename="camel"):
    """What is stored. Hours and days count by the message's date."""

    messages: int
    messages_last_day: int
    channels: int
    channels_active: int
    failures_waiting: int


class Overview(msgspec.Struct, rename="camel"):
    """The gateway's health, None where it does not answer, and what is stored."""

    gateway: dict[str, Any] | None
    gateway_reason: str | None
    store: Counts


class Summary(msgspec.Struct, rename="camel"):
    """What is stored, and how many of the last day's messages the consumer has brought into each state."""

    store: Counts
    by_status: dict[str, int]


class ChannelHealth(msgspec.Struct, rename="camel"):
    """A channel of the registry, whether anything came or not."""

    channel_id: str
    name: str | None
    is_active: bool
    last_message_id: str | None
    last_message_date: datetime | None
    silent_seconds: float | None
    messages_last_day: int
    messages_last_week: int
    failures_waiting: int


class Sample(msgspec.Struct):
    """One figure."""

    name: str
    labels: dict[str, str]
    value: float


class Waiting(msgspec.Struct):
    """Failures that wait for a replay: the first of them, and how many there are."""

    total: int
    items: list[Failure]


class Dashboards:
    """Read-only views over everything."""

    def __init__(self, config: ApiConfig, pool: Pool, client: GatewayClient) -> None:
        self._config = config
        self._pool = pool
        self._client = client

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""

        def get(path: str, endpoint: Any, summary: str, answer: Any, **more: Any) -> Operation:
            return Operation(method="GET", path=path, endpoint=endpoint, summary=summary, answer=answer, **more)

        return (
            get(f"{BASE}/overview", self.overview, "The gateway's health and what is stored", Success[Overview]),
            get(f"{BASE}/metrics", self.metrics, "The gateway's figures", Success[list[Sample]], errors=(503,)),
            get(f"{BASE}/queue", self.queue, "Failures that wait", Success[Waiting], params=(LIMIT,)),
            get(f"{BASE}/queue/preview-limit", self.preview_limit, "Limits of the above", Success[dict[str, int]]),
            get(f"{BASE}/messages/summary", self.summary, "Counts by state", Success[Summary]),
            get(
                f"{BASE}/config",
                self.settings,
                "The settings that are no secret",
                Success[dict[str, Any]],
                scope=Scope.ADMIN,
            ),
            get("/api/channels/health", self.channels, "The health of each channel", Success[list[ChannelHealth]]),
        )

    async def overview(self, _request: Request) -> Response:
        """Also without the gateway."""
        gateway, reason = None, None
        try:
            gateway = await self._client.health()
        except ApiError as error:
            reason = error.message
        return success(Overview(gateway, reason, await transaction(self._pool, _counts)))

    async def metrics(self, _request: Request) -> Response:
        """Those of the stack, without those of the Python process."""
        text = (await self._client.ask("GET", "/metrics")).text
        samples = [
            Sample(sample.name, dict(sample.labels), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("telegram_") and sample.value == sample.value  # not NaN, which JSON lacks
        ]
        return success(samples)

    async def queue(self, request: Request) -> Response:
        """The newest first."""
        query = Query(request.query_params)
        limit = LIMIT.of(query)
        query.finish()
        values = {"consumer": None, "reason": None, "replayed": False, "before": None, "limit": limit}
        items = await list_failures(self._pool, values)
        counts = await transaction(self._pool, _counts)
        return success(Waiting(counts.failures_waiting, items))

    async def preview_limit(self, _request: Request) -> Response:
        """What `queue` takes."""
        return success({"limit": PREVIEW, "maximum": PREVIEW_MAXIMUM})

    async def summary(self, _request: Request) -> Response:
        """Of the consumer whose state is shown."""

        async def work(connection: Connection) -> Summary:
            states = await (await connection.execute(_STATES, [self._config.consumer])).fetchall()
            return Summary(await _counts(connection), dict(states))

        return success(await transaction(self._pool, work))

    async def settings(self, _request: Request) -> Response:
        """Addresses, limits and the store's settings; secrets are files, whose names are not told."""

        async def work(connection: Connection) -> dict[str, str]:
            rows = await (
                await connection.execute("SELECT name, value FROM telegram.settings ORDER BY name")
            ).fetchall()
            return dict(rows)

        config = self._config
        return success(
            {
                "consumer": config.consumer,
                "rateLimit": config.rate_limit,
                "database": f"{config.database.host}:{config.database.port}/{config.database.name}",
                "sentinels": config.cache.sentinels,
                "gateway": f"{config.gateway.host}:{config.gateway.port}",
                "queueEnabled": config.queue.enabled,
                "store": await transaction(self._pool, work),
            }
        )

    async def channels(self, _request: Request) -> Response:
        """All of the registry."""

        async def work(connection: Connection) -> list[ChannelHealth]:
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute("SELECT * FROM telegram.channel_health_summary ORDER BY channel_id")
                return [_channel(row) for row in await cursor.fetchall()]

        return success(await transaction(self._pool, work))


async def _counts(connection: Connection) -> Counts:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_COUNTS)
        return Counts(**(await cursor.fetchone() or {}))


def _channel(row: dict[str, Any]) -> ChannelHealth:
    names = {"channel_id": str(row["channel_id"]), "last_message_id": number_text(row["last_message_id"])}
    return ChannelHealth(**{**row, **names})
