"""Filters about RabbitMQ's definitions: hashed passwords, and what a broker lacks."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

NAMING: dict[str, tuple[str, ...]] = {
    "vhosts": ("name",),
    "users": ("name", "password_hash", "tags"),
    "permissions": ("user", "vhost", "configure", "write", "read"),
    "exchanges": ("vhost", "name", "type", "durable", "arguments"),
    "queues": ("vhost", "name", "durable", "arguments"),
    "bindings": ("vhost", "source", "destination", "routing_key"),
}
"""What makes an object of each kind the same as another one."""


def rabbitmq_password_hash(password: str) -> str:
    """RabbitMQ's salted SHA-256 of `password`, base64 of salt and digest.

    The salt is taken from the password itself, so that a second run renders the same file; our passwords are random,
    so nothing is to be gained from a table of hashes.
    """
    salt = hashlib.sha256(f"salt:{password}".encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def missing_definitions(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """The objects of `wanted` that `there` (what /api/definitions says) lacks or has otherwise, as ``kind name``."""
    missing = []
    for kind, fields in NAMING.items():
        existing = [[item.get(field) for field in fields] for item in there.get(kind, [])]
        missing += [
            f"{kind} {item.get('name') or item.get('user') or item.get('destination')}"
            for item in wanted.get(kind, [])
            if [item.get(field) for field in fields] not in existing
        ]
    return missing


class FilterModule:
    """Filters of the collection about RabbitMQ."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"rabbitmq_password_hash": rabbitmq_password_hash, "missing_definitions": missing_definitions}
