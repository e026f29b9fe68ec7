"""The legacy programs' settings: the `.env` in the folder they are started in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SESSION = Path(".session/telegram-gateway.session")
FAILURE_QUEUE = Path("data/failure-queue.jsonl")


@dataclass(frozen=True)
class Settings:
    """What the three programs need of it."""

    api_id: int
    api_hash: str
    gateway_port: int
    api_port: int
    api_token: str
    database: str
    """Of the messages: a connection URL with password."""
    signals_database: str
    """Of the consumer's signals; by default the same."""
    poll_seconds: float
    sync_limit: int
    """How many messages of each channel are read again at the gateway's start."""


def read(path: Path = Path(".env")) -> Settings:
    """The settings of the file; raises KeyError with the name of what it lacks."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    given = {
        name.strip(): value.strip().strip('"')
        for name, _, value in (line.partition("=") for line in lines if line and not line.startswith("#"))
    }
    return Settings(
        api_id=int(given["TELEGRAM_API_ID"]),
        api_hash=given["TELEGRAM_API_HASH"],
        gateway_port=int(given.get("GATEWAY_PORT", "4006")),
        api_port=int(given.get("TELEGRAM_GATEWAY_API_PORT", "4010")),
        api_token=given["TELEGRAM_GATEWAY_API_TOKEN"],
        database=given["TELEGRAM_GATEWAY_DB_URL"],
        signals_database=given.get("TP_CAPITAL_DB_URL", given["TELEGRAM_GATEWAY_DB_URL"]),
        poll_seconds=float(given.get("TP_CAPITAL_POLL_SECONDS", "5")),
        sync_limit=int(given.get("GATEWAY_SYNC_LIMIT", "200")),
    )
