"""The documents are whole: guides, diagrams, the reference, and links of pages that the site does not have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tools.docs import DOCS, ROOT, diagrams, navigation, reference
from tools.docs.pages import gather

OUTSIDE = [
    path for path in sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("*/**/README.md")) if ".venv" not in path.parts
]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.requirement("DO-01")
def test_the_guides_are_there() -> None:
    assert {"deployment", "migration", "monitoring", "cache", "performance", "troubleshooting", "api"} <= set(
        navigation.GUIDES
    )
    assert "development" in navigation.DEVELOPMENT
    for page in (*navigation.GUIDES, *navigation.PARTS, *navigation.DEVELOPMENT):
        assert len((DOCS / f"{page}.md").read_text(encoding="utf-8")) > 1000, page


@pytest.mark.requirement("DO-02")
def test_each_diagram_is_shown_and_what_is_shown_exists() -> None:
    names = {path.stem for path in diagrams.sources()}
    assert names == {
        "architecture", "architecture-monitoring", "deployment-layers", "data-flow", "cache-flow", "migration-phases",
        "database-comparison",
    }  # fmt: skip
    shown = [name for page in DOCS.rglob("*.md") for name in diagrams.shown(page.read_text(encoding="utf-8"))]
    assert set(shown) == names


@pytest.mark.requirement("DO-02")
def test_the_diagram_of_the_migration_has_its_phases() -> None:
    drawn = re.findall(r":(\d+) ", (diagrams.FOLDER / "migration-phases.puml").read_text(encoding="utf-8"))
    assert [int(number) for number in drawn] == [
        int(path.stem[6:]) for path in sorted(ROOT.glob("roles/migration/tasks/phase_??.yml"))
    ]


@pytest.mark.requirement("DO-02")
def test_ports_in_diagrams_are_those_of_the_roles() -> None:
    shared = yaml.safe_load((ROOT / "roles/common/defaults/main.yml").read_text(encoding="utf-8"))
    ports = {str(value) for name, value in shared.items() if name.endswith("_port")}
    for path in diagrams.sources():
        drawn = set(re.findall(r"[:(]\s?(\d{4,5})\b", path.read_text(encoding="utf-8")))
        assert drawn <= ports, f"{path.name}: {drawn - ports}"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages()


@pytest.mark.requirement("DO-01")
def test_the_reference_has_each_setting(pages: dict[str, str]) -> None:
    specs = sorted(ROOT.glob("roles/*/meta/argument_specs.yml"))
    assert specs
    for path in specs:
        page = pages[f"reference/roles/{path.parents[1].name}.md"]
        for name, option in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"][
            "options"
        ].items():
            assert f"`{name}`" in page, name
            for nested in option.get("options", {}):
                assert f".{nested}`" in page, f"{name}.{nested}"


@pytest.mark.requirement("DO-01")
def test_the_reference_has_each_module_filter_and_playbook(pages: dict[str, str]) -> None:
    modules = {path.stem for path in ROOT.glob("plugins/modules/*.py")}
    assert {Path(name).stem for name in pages if name.startswith("reference/modules/")} == modules
    for kind in ("modules", "filters"):
        for name, page in pages.items():
            if f"/{kind}/" in name:
                assert "## Options" in page and "## Examples" in page, name
    for playbook in (
        "deploy",
        "health",
        "migrate",
        "rollback",
        "finalize",
        "start",
        "stop",
        "backup",
        "restore",
        "uninstall",
    ):
        assert f"## {playbook}.yml\n\n" in pages["reference/playbooks.md"]
    assert "| `-e restore_set=NAME` | which set" in pages["reference/playbooks.md"]
    assert "see [migration.md](../migration.md)" in pages["reference/playbooks.md"]


def test_values_are_shown_as_they_are(pages: dict[str, str]) -> None:
    assert r"<code>\{\{ telegram\_redis\_host \}\}</code>" in pages["reference/roles/redis_sentinel.md"]
    assert "**required**" in pages["reference/modules/pgbouncer_admin.md"]


@pytest.mark.requirement("DO-01")
def test_links_outside_the_site_lead_somewhere() -> None:
    for page in OUTSIDE:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.relative_to(ROOT)}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.relative_to(ROOT)}: {link}"


def anchors(page: Path) -> set[str]:
    """What the forge makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_site_shows_diagrams_titles_and_links_to_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "pages", lambda: {"reference/index.md": "# Reference\n"})
    monkeypatch.setattr(diagrams, "draw", lambda folder: None)
    gather(tmp_path / "site")
    site = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.md")}
    assert "![Architecture](diagrams/architecture.svg)" in site["architecture.md"]
    assert "telegram_stack/blob/main/sql/README.md)" in site["database.md"]
    assert "(../api.md)" in site["0009-kept-answers-are-checked-against-a-snapshot.md"]
    assert "```{code-block} console\n:caption: Illustration: " in site["backup.md"]
    assert "\n\n**Look**: " in site["troubleshooting.md"]
