"""How the simulated Telegram is asked."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


class Control:
    """The simulator's control port."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request; the answer. Raises urllib.error.HTTPError when it is refused."""
        request = urllib.request.Request(  # noqa: S310 - always http, to our own process
            f"{self._address}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read())

    def messages(self) -> list[dict[str, Any]]:
        """Everything that was published, with its last text, and whether it is `deleted`."""
        return [
            {**message, "deleted": deleted}
            for deleted in (False, True)
            for message in self.ask("GET", f"/messages?text=true&deleted={str(deleted).lower()}")["messages"]
        ]
