"""The fault suite's own arithmetic: a row passes only with all it needs, and a recovery ends with the last trouble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import kept
from tests.faults import report
from tests.faults.faults import ROWS
from tests.faults.ledger import Account, Sent, count_writes
from tests.faults.probes import Sample, serving_from
from tests.faults.report import State
from tests.faults.suite import Injection, Latencies


def injection(**changes: Any) -> Injection:
    whole = Injection(
        sent=100, edited=10, deleted=4, durable=100, published=114, published_again=0, effects=110, lost=0,
        not_stored=0, not_published=0, not_effected=0, duplicate_effects=0, reordered=0, recovery=2.0, serving={},
        caught_up=2.0, during=Latencies.of([0.5]), after=Latencies.of([0.02]), troubles={"gateway": ["away"]},
    )  # fmt: skip
    return msgspec.structs.replace(whole, **changes)


def passed(name: str, injections: list[Injection], failures: list[str] | None = None) -> bool:
    [row] = report.results(State({name: injections}, {name: failures or []}))
    return bool(row["passed"])


def test_a_row_passes_with_all_its_injections_and_nothing_lost() -> None:
    assert passed("gateway:kill", [injection()] * 20)
    assert passed("rabbitmq:cut", [injection(recovery=60.0)] * 5)


@pytest.mark.parametrize(
    "injections",
    [
        [injection()] * 19,
        [injection()] * 19 + [injection(lost=1)],
        [injection()] * 19 + [injection(duplicate_effects=1)],
        [injection(recovery=5.1)] * 20,
        [injection(sent=0)] * 20,
    ],
)
def test_a_row_does_not_pass_otherwise(injections: list[Injection]) -> None:
    assert not passed("gateway:kill", injections)


def test_an_injection_that_broke_off_fails_its_row() -> None:
    assert not passed("gateway:kill", [injection()] * 20, ["injection 3: not seen"])


def test_a_row_without_results_is_not_in_the_report_and_an_empty_one_does_not_pass() -> None:
    assert report.results(State()) == []
    assert not passed("gateway:kill", [], ["injection 0: not seen"])


def test_percentiles_are_within_a_class() -> None:
    latencies = Latencies.of([0.010] * 98 + [0.5, 2.0]).plus(Latencies.of([0.010] * 100))
    assert latencies.percentile(50) == pytest.approx(0.010, rel=0.06)
    assert latencies.percentile(99.5) == pytest.approx(0.5, rel=0.06)
    assert latencies.percentile(100) == latencies.highest == 2.0
    assert Latencies().percentile(50) is None


def test_serving_counts_from_the_end_of_the_last_trouble() -> None:
    samples = [Sample(at, at, "away" if at in (1.0, 3.0) else None) for at in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)]
    assert serving_from(samples, 0.5, 9.0) == 4.0
    assert serving_from(samples, 3.5, 9.0) == 3.5
    assert serving_from(samples[:4], 0.5, 9.0) == 9.0


def test_a_second_write_of_a_version_is_a_duplicate_and_an_older_message_is_reordered() -> None:
    account = Account(sent={(1, number): Sent(10.0, "", False, False) for number in (1, 2, 3)})
    writes = [
        ("processing", 1, 1, 7, 10.1),
        ("signals", 1, 1, 7, 10.1),
        ("processing", 1, 3, 7, 10.2),
        ("processing", 1, 2, 7, 10.3),
        ("processing", 1, 1, 8, 10.4),
        ("signals", 1, 1, 7, 10.5),
    ]
    count_writes(account, writes)
    assert (account.effects, account.duplicate_effects, account.reordered) == (4, 1, 1)
    assert [round(took, 1) for _, took in account.latencies] == [0.1, 0.2, 0.3]


def test_the_report_keeps_the_text_around_its_table(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    page.write_text(f"before\n{kept.BEGIN}\nold\n{kept.END}\nafter\n")
    report.write(State({"gateway:kill": [injection()] * 20}, commits=["abc"]), tmp_path)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| gateway | kill | 20 of 20 | 2000 |" in text
    assert f"Of {len(ROWS)} rows 1 are complete" in text
    assert msgspec.json.decode((tmp_path / "faults.json").read_bytes())["rows"][0]["passed"]
