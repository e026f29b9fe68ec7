"""How much each unit could do that its sandbox does not deny, as systemd counts it from what the roles render."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.exposure import LIMIT, NOT_MEASURED, PAGE, measured, told
from tests.integration.units import render


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The exposure of every unit; the name of PostgreSQL's without its version."""
    folder = tmp_path_factory.mktemp("units")
    return {re.sub(r"@\d+-", "@VERSION-", unit): exposure(folder / f"{unit}.service") for unit in render(folder)}


def exposure(unit: Path) -> float:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert not re.search("unknown|invalid|failed to parse", done.stderr, re.IGNORECASE), done.stderr
    return measured(done.stdout)


def test_the_page_tells_of_every_unit_and_of_no_other(exposures: dict[str, float]) -> None:
    assert told().keys() == exposures.keys()
    assert f"`{NOT_MEASURED}`" in PAGE.read_text()


def test_no_unit_is_more_exposed_than_the_page_says(exposures: dict[str, float]) -> None:
    assert {unit: value for unit, value in exposures.items() if value > told()[unit]} == {}


def test_each_unit_of_our_own_is_below_the_limit(exposures: dict[str, float]) -> None:
    ours = {unit: value for unit, value in exposures.items() if unit.startswith("telegram-")}
    assert {unit: value for unit, value in ours.items() if value > LIMIT} == {}
    assert len(ours) >= 11
