"""One round: faults beside each other, the alerts that Alertmanager then has, and how they end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

import httpx
import msgspec
from tests.alerts.faults import Fault, Labels
from tests.alerts.host import Host
from tests.integration.servers import ROOT

SETTLE_SECONDS = 30.0
"""How long a round waits for its alerts to end; those that look back longer are watched beside the next ones."""
LAST_SECONDS = 1200.0
"""How long is waited for these at the end."""
ALWAYS = "DeadMansSwitch"
LASTING = {"ErrorBudgetBurns", "EventsQuarantined"}
"""Alerts for whose end nobody waits: one looks back two hours, the other does not end by itself."""

Alert = Mapping[str, Any]


class Fired(msgspec.Struct):
    """One alert by its fault. `fire` in seconds since the fault, `resolve` since its end (`undone`); None: not seen."""

    fault: str
    labels: dict[str, str]
    fire: float
    undone: float | None = None
    resolve: float | None = None
    suppressed: bool = False
    wrong: list[str] = msgspec.field(default_factory=list)


def alerts(host: Host) -> list[Alert] | None:
    """What Alertmanager has now, suppressed ones too; None while it does not answer."""
    try:
        found: list[Alert] = host.alertmanager.get("/api/v2/alerts").raise_for_status().json()
    except (httpx.TransportError, httpx.HTTPStatusError):
        return None
    return found


def names(found: Iterable[Alert] | None) -> set[str]:
    """Their names."""
    return {alert["labels"]["alertname"] for alert in found or ()}


def named(found: Iterable[Alert], name: str, labels: Labels) -> Alert | None:
    """The alert with that name and these labels."""
    wanted = {"alertname": name, **labels}
    return next((alert for alert in found if wanted.items() <= alert["labels"].items()), None)


def _since(alert: Alert) -> float:
    """Since when Prometheus has it fire, in seconds since 1970; Alertmanager has it from then on."""
    return datetime.fromisoformat(alert["startsAt"]).timestamp()


def broken_link(url: str) -> str | None:
    """Why the link to the runbook leads nowhere; None when file and section are there."""
    path, _, section = url.partition("#")
    file = ROOT / "docs" / path.rpartition("/docs/")[2]
    if "/docs/" not in path or not file.is_file():
        return f"{url}: no such file in docs"
    titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return None if section in {title.strip().lower() for title in titles} else f"{url}: no such section"


class Standing:
    """A fault that was made: what it shows, and how that ends."""

    def __init__(self, host: Host, fault: Fault) -> None:
        self.fault = fault
        self.fired: dict[str, Fired] = {}
        self._host = host
        self._made = ExitStack()
        self._began = time.time()
        self.undone: float | None = None
        self._wanted = dict(fault.alerts)
        self.trouble: str | None = None
        with self._told():
            self._made.enter_context(fault.make(host))

    def look(self, found: Sequence[Alert]) -> None:
        """Note what is new in `found`, and undo the fault as soon as all is seen."""
        for name, labels in list(self._wanted.items()):
            alert = named(found, name, labels)
            if (alert is None) != self.fault.silences or (alert and _since(alert) < self._began):
                continue
            self._wanted.pop(name)
            self.fired[name] = self._seen(
                alert, (_since(alert) if alert else time.time()) - (self.undone or self._began)
            )
            self.fired[name].undone = self.undone
        if not self._wanted and self.undone is None:
            self.undo()
            self._wanted = dict(self.fault.afterwards)

    def _seen(self, alert: Alert | None, seconds: float) -> Fired:
        if alert is None:
            return Fired(self.fault.name, {}, seconds)
        told = alert["annotations"]
        wrong = [f"no {name}" for name in ("summary", "description") if not told.get(name)]
        wrong += [problem] if (problem := broken_link(told.get("runbook_url", ""))) else []
        wrong += [] if alert["labels"].get("severity") in {"critical", "warning"} else ["no severity"]
        labels = {name: value for name, value in alert["labels"].items() if name != "alertname"}
        return Fired(self.fault.name, labels, seconds, suppressed=alert["status"]["state"] == "suppressed", wrong=wrong)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What cannot be made or undone ends this fault, not the others."""
        try:
            yield
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"

    def undo(self) -> None:
        """Undo the fault, if it still stands."""
        if self.undone is None:
            with self._told():
                self._made.close()
            self.undone = time.time()
            for fired in self.fired.values():
                fired.undone = self.undone

    def give_up(self) -> None:
        """Undo the fault and wait for nothing more."""
        self.undo()
        self._wanted = {}

    @property
    def shown(self) -> bool:
        """Whether every alert has been seen."""
        return not self._wanted and self.undone is not None

    @property
    def over(self) -> bool:
        """Whether every one was seen and has ended."""
        return self.shown and all(fired.resolve is not None for fired in self.fired.values())

    @property
    def failure(self) -> str | None:
        """What could not be done, or did not come in time."""
        if self._wanted and time.time() - (self.undone or self._began) > self.fault.within:
            return f"{', '.join(self._wanted)}: not within {self.fault.within:.0f} s of the fault `{self.fault.name}`"
        return self.trouble


class Suite:
    """Rounds on one host. `known` is what has fired so far, by the alert; `keep` is called when there is more of it."""

    def __init__(self, host: Host, known: dict[str, Fired], keep: Callable[[], None]) -> None:
        self._host = host
        self._known = known
        self._keep = keep

    def round(self, faults: Sequence[Fault]) -> tuple[dict[str, str], list[str]]:
        """Make `faults`; what did not come, by fault, and which other alerts fired meanwhile."""
        known = names(alerts(self._host))
        expected = {name for fault in faults for name in (*fault.alerts, *fault.afterwards)} | {ALWAYS}
        others: set[str] = set()
        missing: dict[str, str] = {}
        standing: list[Standing] = []
        try:
            for fault in faults:
                standing.append(Standing(self._host, fault))
            while not all(one.shown for one in standing):
                others |= names(self._look(standing)) - known - expected
                for one in standing:
                    if one.failure:
                        missing.setdefault(one.fault.name, one.failure)
                        one.give_up()
            settled = time.monotonic() + SETTLE_SECONDS
            while time.monotonic() < settled and not all(one.over for one in standing):
                self._look(standing)
        finally:
            for one in standing:
                one.undo()
        return missing, sorted(others)

    def _look(self, standing: Sequence[Standing]) -> list[Alert]:
        time.sleep(1.0)
        found = alerts(self._host)
        if found is None:
            return []
        before = msgspec.json.encode(self._known)
        for one in standing:
            one.look(found)
            self._known |= one.fired
        end(self._known, found, self._firing())
        if msgspec.json.encode(self._known) != before:
            self._keep()
        return found

    def _firing(self) -> set[str] | None:
        """What fires by Prometheus; None while it does not answer. An Alertmanager that has just begun knows less."""
        try:
            return {one["metric"]["alertname"] for one in self._host.query('ALERTS{alertstate="firing"}')}
        except httpx.HTTPError:
            return None

    def settle(self) -> None:
        """Wait for the ends of what looks back long, but not for hours."""
        last = time.monotonic() + LAST_SECONDS
        while time.monotonic() < last and any(
            fired.undone and fired.resolve is None for name, fired in self._known.items() if name not in LASTING
        ):
            self._look([])


def end(known: Mapping[str, Fired], found: Sequence[Alert], firing: set[str] | None) -> None:
    """Note which of the alerts have ended, or fire again where the fault silences them."""
    if firing is None:
        return
    for name, fired in known.items():
        gone = named(found, name, fired.labels) is None and (name not in firing or name == ALWAYS)
        if fired.undone and fired.resolve is None and gone != (name == ALWAYS):
            fired.resolve = time.time() - fired.undone
