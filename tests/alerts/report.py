"""The page: what fired by which fault, how soon, what it says, and what the monitoring costs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from tests import kept
from tests.alerts.faults import NOT_MADE, Fault, faults
from tests.alerts.healthy import Healthy
from tests.alerts.host import CHANNELS, PATIENCE, RATE
from tests.alerts.suite import ALWAYS, Fired
from tests.faults.report import machine
from tests.unit.alert_rules import alerts

CPU_BAR, MEMORY_BAR = 5.0, 400 << 20


class State(msgspec.Struct):
    """What has been measured so far: by alert, and what did not come by fault."""

    commits: list[str] = msgspec.field(default_factory=list)
    healthy: Healthy | None = None
    fired: dict[str, Fired] = msgspec.field(default_factory=dict)
    missing: dict[str, str] = msgspec.field(default_factory=dict)
    others: dict[str, list[str]] = msgspec.field(default_factory=dict)
    filled: list[str] = msgspec.field(default_factory=list)

    def lacks(self, fault: Fault) -> bool:
        """Whether an alert of the fault has not been seen."""
        return not {*fault.alerts, *fault.afterwards} <= set(self.fired)


def wrong(state: State) -> list[str]:
    """Everything that is not as it has to be; empty when every bar is met."""
    found = [f"{name}: {text}" for name, text in state.missing.items()]
    found += [f"{name}: {text}" for name, fired in state.fired.items() for text in fired.wrong]
    found += [f"{name}: not tried yet" for name in sorted(set(alerts()) - set(state.fired) - set(NOT_MADE))]
    well = state.healthy
    if well is None:
        return [*found, "the stack has not been watched while all was well"]
    found += [f"fired while all was well: {name}" for name in well.fired]
    found += [f"did not answer while all was well: {name}" for name in well.down]
    found += [f"cannot be computed: {name}" for name in well.failing]
    found += [f"never had data: {text}" for text, why in well.empty.items() if not why and text not in state.filled]
    cpu, memory = _sums(well)
    found += [f"the monitoring takes {cpu:.1f} % of a core"] if cpu > CPU_BAR else []
    found += [f"the monitoring takes {memory / 2**20:.0f} MiB"] if memory > MEMORY_BAR else []
    return found


def _sums(well: Healthy) -> tuple[float, int]:
    return sum(one.cpu for one in well.cost.values()), sum(one.memory for one in well.cost.values())


def write(state: State, folder: Path) -> None:
    """``alerts.json``, and what was measured in ``alerts.md`` between its marks."""
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "commits": state.commits,
        "machine": machine(),
        "messages_a_second": RATE,
        "channels": CHANNELS,
        "patience": PATIENCE,
        "not_made": NOT_MADE,
    }
    whole = msgspec.to_builtins(state) | about
    (folder / "alerts.json").write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=1))
    kept.tell(folder / "alerts.md", _measured(state, about))


def _measured(state: State, about: dict[str, object]) -> str:
    problems = wrong(state)
    verdict = "Every bar is met." if not problems else "\n".join(["Not met:", "", *(f"* {text}" for text in problems)])
    parts = [
        f"Measured {about['date']} at {', '.join(state.commits)} on {about['machine']}: {RATE} messages/s in "
        f"{CHANNELS} channels, two requests/s of the API, scraped each 15 s, alerts with {PATIENCE:g} of their time.",
        verdict,
        *([_well(state.healthy, state.filled)] if state.healthy else []),
        _table(state),
        "Not made, and why:\n\n" + "\n".join(f"* `{name}`: {why}" for name, why in NOT_MADE.items()),
        _followed(state),
    ]
    return "\n\n".join(part for part in parts if part)


def _well(well: Healthy, filled: list[str]) -> str:
    cpu, memory = _sums(well)
    lines = [
        "### While all is well",
        "",
        f"For {well.seconds:.0f} s: {well.targets} targets, not answering: {', '.join(well.down) or 'none'}. "
        f"{well.alerts} alerts, firing beside `{ALWAYS}`: {', '.join(well.fired) or 'none'}. Rules that fail: "
        f"{', '.join(well.failing) or 'none'}. {well.expressions} expressions of panels and recording rules, "
        f"{len(well.empty)} of them empty:",
        "",
        "| empty while all is well | because | during the faults |",
        "|---|---|---|",
        *(
            f"| `{text.replace('|', '&#124;')}` | {why or 'nothing has happened'} | {_later(text, filled)} |"
            for text, why in well.empty.items()
        ),
        "",
        "### What the monitoring costs",
        "",
        f"Bars: {CPU_BAR:g} % of a core and {MEMORY_BAR >> 20} MiB, all together.",
        "",
        "| unit | % of a core | MiB |",
        "|---|---|---|",
        *(f"| {unit} | {one.cpu:.2f} | {one.memory / 2**20:.0f} |" for unit, one in well.cost.items()),
        f"| **together** | **{cpu:.2f}** | **{memory / 2**20:.0f}** |",
    ]
    return "\n".join(lines)


def _later(text: str, filled: list[str]) -> str:
    return "data" if text in filled else "-"


def _table(state: State) -> str:
    known = faults()
    lines = ["### Faults", "", "| alert | fault | fires after s | ends after s | labels |", "|---|---|---|---|---|"]
    for name in (name for name in alerts() if name in state.fired):
        fired = state.fired[name]
        fault = known[fired.fault]
        behind = " (from its end on)" if name in fault.afterwards else ""
        labels = ", ".join(f"{label}={value}" for label, value in sorted(fired.labels.items()))
        told = " (suppressed: its cause is told)" if fired.suppressed else ""
        first, then = f"{fired.fire:.0f}", "-" if fired.resolve is None else f"{fired.resolve:.0f}"
        if fault.silences:
            first, then = f"silent after {first}", f"fires after {then}"
        lines.append(f"| `{name}` | {fault.what}{behind} | {first} | {then} | {labels}{told} |")
    return "\n".join(lines)


def _followed(state: State) -> str:
    lines = [f"| {names} | {', '.join(others) or 'none'} |" for names, others in state.others.items()]
    return "\n".join(
        ["Other alerts that began while these faults stood:", "", "| faults | alerts |", "|---|---|", *lines]
    )
