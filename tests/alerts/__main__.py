"""Makes every alert fire by a fault of its own on a host with the whole stack. Goes on where the last run ended."""

from __future__ import annotations

import argparse
import signal
import sys

from tests import kept
from tests.alerts import healthy, host, report
from tests.alerts.faults import ROUNDS, faults
from tests.alerts.suite import Suite
from tests.faults.report import commit
from tests.integration.servers import ROOT
from tools.dashboards import pictures
from tools.targets.host import lacks

STATE = host.STATE / "state.json"


def main() -> int:
    """Watch the stack while all is well, then make what is left of the chosen faults; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="make alerts", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="none: all that have not been made")
    parser.add_argument("--list", action="store_true", help="name the faults with their alerts and end")
    parser.add_argument("--remove", action="store_true", help="remove the host and end; what was measured stays")
    parser.add_argument(
        "--pictures", type=float, metavar="MINUTES", help="draw the dashboards of the last minutes into docs and end"
    )
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name}: {', '.join([*one.alerts, *one.afterwards])}" for name, one in faults().items()))
        return 0
    if unknown := sorted(set(options.faults) - set(faults())):
        parser.error(f"no such fault: {', '.join(unknown)}; --list names them")
    if options.remove:
        host.remove()
        return 0
    if lack := lacks():
        parser.exit(2, f"{' '.join(lack)}\n")
    if options.pictures:
        with host.running() as running:
            pictures.write(str(running.prometheus.base_url), ROOT / "docs" / "images", options.pictures)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what stands is undone first
    state = kept.load(STATE, report.State)
    if (now := commit()) not in state.commits:
        state.commits.append(now)
    with host.running() as running:
        if state.healthy is None:
            print(f"Watching the stack for {healthy.SECONDS:.0f} s while all is well", flush=True)
            state.healthy = healthy.look(running)
            _keep(state)
        _make(running, state, options.faults)
        if state.healthy.empty:
            state.filled = sorted({*state.filled, *healthy.filled(running, state.healthy.empty)})
            _keep(state)
    problems = report.wrong(state)
    print("\n".join(problems) or "Every bar is met.")
    return 1 if problems else 0


def _make(running: host.Host, state: report.State, chosen: list[str]) -> None:
    """Make the faults, round by round, and keep what each shows."""

    suite = Suite(running, state.fired, lambda: _keep(state))
    for together in ROUNDS:
        wanted = [one for one in together if (one.name in chosen if chosen else state.lacks(one))]
        if not wanted:
            continue
        names = ", ".join(one.name for one in wanted)
        print(names, flush=True)
        missing, others = suite.round(wanted)
        for name in (name for one in wanted for name in (*one.alerts, *one.afterwards) if name in state.fired):
            print(f"    {name}: {state.fired[name].fire:.0f} s", flush=True)
        for one in wanted:
            state.missing.pop(one.name, None)
        print("".join(f"    {text}\n" for text in missing.values()), end="", flush=True)
        state.missing |= missing
        state.others[names] = others
        _keep(state)
    suite.settle()


def _keep(state: report.State) -> None:
    kept.save(STATE, state)
    report.write(state, ROOT / "docs")


if __name__ == "__main__":
    sys.exit(main())
