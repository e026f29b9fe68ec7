"""The changelog is made of what the releases' file says, and by nobody's hand."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_changelog_is_what_the_releases_give(tmp_path: Path) -> None:
    made = tmp_path / "CHANGELOG.md"
    subprocess.run(["antsibull-changelog", "generate", "--output", str(made)], cwd=ROOT, check=True, timeout=120)
    assert (ROOT / "CHANGELOG.md").read_text() == made.read_text(), "write a fragment instead, then: make changelog"


def test_the_version_in_the_making_is_the_newest_of_the_changelog() -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    releases = yaml.safe_load((ROOT / "changelogs/changelog.yaml").read_text())["releases"]
    assert max(releases, key=lambda name: tuple(map(int, name.split(".")))) == version
