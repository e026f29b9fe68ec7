"""The books of `make alerts`: every alert has a fault or a reason, and what is not as it should be is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import kept
from tests.alerts import report
from tests.alerts.faults import NOT_MADE, ROUNDS, Fault, faults
from tests.alerts.healthy import Cost, Healthy
from tests.alerts.host import Host
from tests.alerts.report import State
from tests.alerts.suite import ALWAYS, Fired, Standing, broken_link, end
from tests.kept import BEGIN, END
from tests.unit.alert_rules import alerts, settings

WELL = Healthy(240.0, 12, 42, 100, [], [], [], {}, {"prometheus": Cost(2.0, 200 << 20)})


def complete(**changes: Any) -> State:
    """All that can be measured, as it should be, but for `changes`."""
    made = {
        name: Fired(one.name, {"severity": "warning"}, 30.0, 1.0, 60.0)
        for one in faults().values()
        for name in (*one.alerts, *one.afterwards)
    }
    return msgspec.structs.replace(State(commits=["abc"], healthy=WELL, fired=made), **changes)


@pytest.mark.requirement("MO-02")
def test_each_alert_has_one_fault_or_a_reason_why_there_is_none() -> None:
    made = [name for one in faults().values() for name in (*one.alerts, *one.afterwards)]
    assert len(made) == len(set(made))
    assert sorted([*made, *NOT_MADE]) == sorted(alerts())
    assert sum(map(len, ROUNDS)) == len(faults()), "two faults have one name"


@pytest.mark.requirement("MO-04")
def test_a_link_is_good_when_file_and_section_are_there() -> None:
    page = settings()["monitoring_runbook_url"]
    assert broken_link(f"{page}#diskspacelow") is None
    assert "section" in str(broken_link(f"{page}#nothing"))
    assert "file" in str(broken_link(page.replace("troubleshooting", "nothing")))
    assert "file" in str(broken_link(""))


def test_what_is_complete_meets_every_bar() -> None:
    assert report.wrong(complete()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fired": {}}, "DatabaseDown: not tried yet"),
        ({"missing": {"disk": "DiskSpaceLow: not within 240 s"}}, "disk: DiskSpaceLow"),
        ({"healthy": None}, "has not been watched"),
        ({"healthy": msgspec.structs.replace(WELL, fired=["ClockSkew"])}, "fired while all was well: ClockSkew"),
        ({"healthy": msgspec.structs.replace(WELL, down=["node h"])}, "did not answer while all was well: node h"),
        ({"healthy": msgspec.structs.replace(WELL, failing=["ClockSkew"])}, "cannot be computed: ClockSkew"),
        ({"healthy": msgspec.structs.replace(WELL, empty={"up": ""})}, "never had data: up"),
        ({"healthy": msgspec.structs.replace(WELL, cost={"prometheus": Cost(5.1, 1)})}, "5.1 % of a core"),
        ({"healthy": msgspec.structs.replace(WELL, cost={"prometheus": Cost(1, 401 << 20)})}, "401 MiB"),
    ],
)
def test_what_is_not_as_it_should_be_is_told(changes: dict[str, Any], told: str) -> None:
    assert told in "\n".join(report.wrong(complete(**changes)))


def test_an_empty_expression_may_have_a_reason_or_be_filled_by_a_fault() -> None:
    empty = {"a": "no migration", "b": ""}
    state = complete(healthy=msgspec.structs.replace(WELL, empty=empty), filled=["b"])
    assert report.wrong(state) == []


def test_the_page_keeps_what_people_wrote_and_a_state_comes_back(tmp_path: Path) -> None:
    page = tmp_path / "alerts.md"
    page.write_text(f"# Alerts\n\n{BEGIN}\nolder figures\n{END}\nthe end\n")
    state = complete()
    kept.save(tmp_path / "state.json", state)
    assert kept.load(tmp_path / "state.json", State) == state
    report.write(state, tmp_path)
    text = page.read_text()
    assert text.startswith("# Alerts\n")
    assert text.endswith("the end\n")
    assert "older figures" not in text
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(state.fired)
    assert all(f"* `{name}`" in text for name in NOT_MADE)


def alert(name: str, **labels: str) -> dict[str, Any]:
    """An alert as Alertmanager tells it."""
    link = f"{settings()['monitoring_runbook_url']}#{name.lower()}"
    told = {"summary": "It is so", "description": "It is so.", "runbook_url": link}
    began = datetime.now(UTC).isoformat()
    return {
        "labels": {"alertname": name, **labels},
        "annotations": told,
        "status": {"state": "active"},
        "startsAt": began,
    }


def test_a_fault_ends_when_its_alerts_are_there_and_they_end_later() -> None:
    log: list[str] = []

    @contextmanager
    def make(_host: Host) -> Iterator[None]:
        log.append("made")
        yield
        log.append("undone")

    fault = Fault("disk", "", make, {"DiskSpaceLow": {"mountpoint": "/a"}}, {"HighPollingLag": {}})
    one = Standing(None, fault)  # type: ignore[arg-type]  # it is only handed on
    always = alert(ALWAYS)
    one.look([always, alert("DiskSpaceLow", mountpoint="/b", severity="critical")])
    assert log == ["made"]
    low = alert("DiskSpaceLow", mountpoint="/a", severity="critical")
    one.look([always, low])
    assert log == ["made", "undone"]
    assert not one.shown
    one.look([always, low, alert("HighPollingLag")])
    assert one.shown
    assert one.fired["DiskSpaceLow"].wrong == []
    assert one.fired["HighPollingLag"].wrong == ["no severity"]
    end(one.fired, [always], {"DiskSpaceLow", "HighPollingLag"})  # an Alertmanager that has just begun
    end(one.fired, [], None)  # no Prometheus
    assert [fired.resolve for fired in one.fired.values()] == [None, None]
    end(one.fired, [always, low], set())
    assert (one.fired["DiskSpaceLow"].resolve, one.over) == (None, False)
    end(one.fired, [always], set())
    assert one.over


def test_a_fault_that_cannot_be_made_is_told_and_ends_alone() -> None:
    @contextmanager
    def make(_host: Host) -> Iterator[None]:
        raise AssertionError("on the host: mv: no such file")
        yield

    one = Standing(None, Fault("disk", "", make, {"DiskSpaceLow": {}}))  # type: ignore[arg-type]
    assert "no such file" in str(one.failure)
    one.give_up()
    assert one.over
