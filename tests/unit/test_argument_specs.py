"""Every setting of a role is in its argument specs, with a type, a description and the default that it really has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if (path / "meta" / "argument_specs.yml").is_file())
ONLY_IN_SPECS = {"telegram_secrets"}
"""Made by the deploy playbook, so without a default."""

every_role = pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)


def load(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def defaults(role: Path) -> dict[str, Any]:
    return load(role / "defaults" / "main.yml")


def specs(role: Path) -> dict[str, Any]:
    found: dict[str, Any] = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    return found


def options(role: Path, entry_point: str = "main") -> dict[str, Any]:
    found: dict[str, Any] = specs(role)[entry_point]["options"]
    return found


def test_there_are_roles() -> None:
    assert {"common", "gateway", "gateway_api", "signal_worker"} <= {role.name for role in ROLES}


@every_role
def test_each_default_is_an_option_and_each_option_has_a_default(role: Path) -> None:
    assert set(options(role)) - ONLY_IN_SPECS == set(defaults(role))


@every_role
def test_each_option_says_its_type_and_what_it_is_for(role: Path) -> None:
    for name, option in options(role).items():
        assert option.get("type"), name
        described = option.get("description")
        assert described, name
        for sentence in [described] if isinstance(described, str) else described:
            assert sentence.rstrip().endswith("."), f"{name}: {sentence!r} is no sentence"
        if option["type"] == "list":
            assert option.get("elements"), name


@every_role
def test_the_default_that_is_told_is_the_default_that_is_used(role: Path) -> None:
    used = defaults(role)
    for name, option in options(role).items():
        if "default" in option:
            assert option["default"] == used[name], name


@every_role
def test_preflight_takes_the_same_options(role: Path) -> None:
    assert (role / "tasks" / "preflight.yml").is_file()
    assert options(role, "preflight") == options(role)
    assert specs(role)["main"].get("short_description")
    assert specs(role)["preflight"].get("short_description")


@every_role
def test_settings_carry_the_name_of_their_role(role: Path) -> None:
    prefixes = ("common_", "telegram_") if role.name == "common" else (f"{role.name}_",)
    assert [name for name in options(role) if not name.startswith(prefixes)] == []


@every_role
def test_each_setting_is_read_somewhere(role: Path) -> None:
    """A shared setting may be read by any role, one of a role's own by that role only."""
    folder = ROOT / "roles" if role.name == "common" else role
    texts = [
        path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in {".yml", ".j2", ".sql"} and path.name != "argument_specs.yml"
    ]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "playbooks").rglob("*.yml")]
    for name, option in options(role).items():
        if len(option.get("choices", [])) == 1:  # the specs themselves refuse everything else
            continue
        uses = sum(len(re.findall(rf"(?<![\w]){name}(?![\w])(?!:)", text)) for text in texts)
        assert uses, f"{name} is set by nobody's code: a dead setting"


@every_role
def test_no_role_reads_a_setting_of_another(role: Path) -> None:
    """What two roles have to agree on is a telegram_ variable of the role common."""
    foreign = {name for other in ROLES if other not in (role, ROOT / "roles" / "common") for name in options(other)}
    if role.name == "common":
        return
    for path in (*role.rglob("*.yml"), *role.rglob("*.j2")):
        expressions = re.findall(r"{{.*?}}|{%.*?%}|(?:when|that|until):.*", path.read_text(encoding="utf-8"))
        assert set(re.findall(r"\w+", " ".join(expressions))) & foreign == set(), path


@every_role
def test_what_the_command_line_may_say_is_made_a_bool_where_it_decides(role: Path) -> None:
    """`-e name=true` is a text, which a condition refuses."""
    switches = [
        name
        for name, option in options(role).items()
        if option["type"] == "bool" and "For the command line" in str(option["description"])
    ]
    tasks = "\n".join(path.read_text(encoding="utf-8") for path in (role / "tasks").glob("*.yml"))
    for name in switches:
        assert re.findall(rf"(?:not |that: |^ +){name}(?! \| bool)", tasks, re.MULTILINE) == [], name
