"""Whether each part serves, asked all the time from threads of their own."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from tests.faults.stack import TOKEN, Stack

_EVERY = 0.1
_TIMEOUT = 1.0
_COUNTS = re.compile(r"\b\d+(?= (events|channels|s behind))")


@dataclass(frozen=True)
class Sample:
    """One answer: None in `trouble` when all was well."""

    asked: float
    answered: float
    trouble: str | None


class Probe:
    """Asks one thing every tenth of a second; times are seconds since the epoch."""

    def __init__(self, name: str, url: str, judge: Callable[[Any], str | None], headers: dict[str, str]) -> None:
        self.name = name
        self.samples: list[Sample] = []
        self._url, self._judge, self._headers = url, judge, headers
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with httpx.Client(timeout=_TIMEOUT, headers=self._headers) as client:
            while not self._closing.wait(_EVERY):
                asked = time.time()
                try:
                    answer = client.get(self._url)
                    trouble = self._judge(answer.json()) if answer.is_success else _words(answer)
                except (httpx.HTTPError, ValueError) as error:
                    trouble = type(error).__name__
                self.samples.append(Sample(asked, time.time(), trouble))

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def well_for(self, seconds: float) -> bool:
        """Whether every answer to what was asked in the last `seconds` was good, and there were some."""
        since = time.time() - seconds
        recent = [sample for sample in list(self.samples) if sample.answered >= since]
        return len(recent) >= 3 and all(sample.trouble is None for sample in recent)

    def serving_from(self, begun: float) -> float:
        """When it was well for good, counted from `begun`."""
        return serving_from(list(self.samples), begun, time.time())

    def troubles(self, begun: float) -> list[str]:
        """What was wrong since `begun`, each once."""
        troubles = {sample.trouble for sample in list(self.samples) if sample.trouble and sample.answered >= begun}
        return sorted({_COUNTS.sub("some", trouble) for trouble in troubles})


def serving_from(samples: Sequence[Sample], begun: float, now: float) -> float:
    """The first good answer after the last bad one since `begun`; `begun` without a bad, `now` without a good one."""
    found, troubled = begun, False
    for sample in samples:
        if sample.answered < begun:
            continue
        if sample.trouble is not None:
            troubled = True
        elif troubled:
            found, troubled = sample.answered, False
    return now if troubled else found


def probes(stack: Stack) -> list[Probe]:
    """The gateway with its sinks, the worker, and a query of the API."""
    return [
        Probe("gateway", f"{stack.gateway}/health", _gateway, {}),
        Probe("worker", f"{stack.worker}/health", lambda _answer: None, {}),
        Probe("api", f"{stack.api}/api/messages?limit=1", lambda _answer: None, {"X-API-Key": TOKEN}),
    ]


def _words(answer: httpx.Response) -> str:
    try:
        body = answer.json()
        causes = body.get("causes") or [
            part["reason"] for part in body.get("components", {}).values() if part.get("reason")
        ]
        return f"{answer.status_code} {'; '.join(map(str, causes))}".strip()
    except (ValueError, AttributeError, TypeError):
        return str(answer.status_code)


def _gateway(health: Any) -> str | None:
    """Every sink takes what it is given, and no channel has a hole."""
    away = [name for name, sink in health["sinks"].items() if not sink["available"]]
    late = [name for name, sink in health["sinks"].items() if sink["oldestSeconds"] > 1]
    if health["status"] != "healthy" or away or late:
        return "; ".join(health["causes"]) or f"behind: {', '.join(late)}"
    return f"{health['recovering']} channels are read again" if health["recovering"] else None
