"""The scenario's hosts, each by its name, and what `molecule/default/tests` has for all scenarios."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

sys.path.append(str(Path(__file__).resolve().parents[2] / "default" / "tests"))


@pytest.fixture(scope="session")
def on(request: pytest.FixtureRequest) -> Callable[[str], Host]:
    """The host `mol-<name>`."""
    inventory = request.config.getoption("--ansible-inventory")
    return lambda name: testinfra.get_host(f"ansible://mol-{name}", ansible_inventory=inventory)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Nothing is asked of each host in turn."""
    if "_testinfra_host" in metafunc.fixturenames:
        raise pytest.UsageError("use the fixture `on`, which names a host")
