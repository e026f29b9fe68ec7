"""What role `migration` gives to modules whole is what they know: else only a migration would find out."""

from __future__ import annotations

import importlib
import re

import pytest
import yaml
from tests.integration.servers import ROOT

from telegram_stack.console import migration

ROLE = ROOT / "roles" / "migration"
_GIVEN = re.compile(r'tradingsystem\.telegram_stack\.(\w+): (?:>-\s*)?"?\{\{ (_migration_\w+)')
CALLS = sorted({call for path in ROLE.glob("tasks/*.yml") for call in _GIVEN.findall(path.read_text())})


def options(module: str) -> set[str]:
    """Names of a module's options, those of its fragments included."""
    document = yaml.safe_load(importlib.import_module(f"plugins.modules.{module}").DOCUMENTATION)
    names = set(document["options"])
    for fragment in document.get("extends_documentation_fragment", []):
        name, _, part = fragment.removeprefix("tradingsystem.telegram_stack.").partition(".")
        fragments = importlib.import_module(f"plugins.doc_fragments.{name}").ModuleDocFragment
        names |= set(yaml.safe_load(getattr(fragments, part.upper() or "DOCUMENTATION"))["options"])
    return names


@pytest.mark.parametrize(("module", "given"), CALLS)
def test_a_module_knows_what_the_role_gives_it(module: str, given: str) -> None:
    assert set(yaml.safe_load((ROLE / "vars" / "main.yml").read_text())[given]) <= options(module)


def test_the_calls_are_found() -> None:
    assert {("legacy_tables_copy", "_migration_smaller"), ("message_copy", "_migration_both")} <= set(CALLS)


def test_the_console_calls_the_phases_as_the_runbook_does() -> None:
    phases = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["_migration_phases"]
    assert tuple(phase["name"] for phase in phases) == migration.TITLES
