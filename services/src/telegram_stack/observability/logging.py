"""Logs as JSON lines on stdout, which systemd hands to the journal.

Ids belong into a record, never text of messages, phone numbers or sessions.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

LogLevel = Literal["debug", "info", "warning", "error"]

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """One line a record: time, level, service, logger, message, whatever came by ``extra``, and the traceback."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def setup(service: str, level: LogLevel) -> None:
    """Send every record of at least `level` to stdout as JSON lines.

    Libraries that tell each step at info (Telethon, pika, uvicorn's access log) are heard from warning on,
    unless `level` is debug.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    if level != "debug":
        for name in ("telethon", "pika", "uvicorn.access", "uvicorn.error", "asyncio"):
            logging.getLogger(name).setLevel(logging.WARNING)
