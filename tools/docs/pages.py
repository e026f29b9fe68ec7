"""Gathers the pages of the site: those of docs/, the reference, and the diagrams' pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

from tools.docs import DOCS, ROOT, diagrams, navigation, reference

_TITLED = re.compile(r"^```(?P<language>\w+) title=\"(?P<title>[^\"]+)\"$", re.MULTILINE)
_STEP = re.compile(r"^(Look|Do)(?=: )", re.MULTILINE)
_OUTWARD = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def gather(folder: Path) -> None:
    """Write everything that Sphinx reads into `folder`, which is new."""
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.md", "*.puml", "*.iuml", "*.json"))
    for source in DOCS.rglob("*.md"):
        place = folder / source.relative_to(DOCS)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_page(source), encoding="utf-8")
    with (folder / "index.md").open("a", encoding="utf-8") as index:
        index.write(f"\n{navigation.tables_of_contents()}\n")
    for name, text in reference.pages().items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    diagrams.draw(folder / "diagrams")


def _page(source: Path) -> str:
    """A page of docs/ as the site has it: diagrams and titles are shown, what is not in docs/ is in the repository."""
    text = diagrams.as_pictures(source.read_text(encoding="utf-8"))
    text = _TITLED.sub(r"```{code-block} \g<language>\n:caption: \g<title>", text)
    text = _STEP.sub(r"\n**\1**", text)  # of an alert's section: found at a glance
    return _OUTWARD.sub(lambda link: _link(source, link), text)


def _link(source: Path, link: re.Match[str]) -> str:
    target = (source.parent / link["path"]).resolve()
    if target.is_relative_to(DOCS) or not target.exists():
        return link[0]  # where there is nothing, Sphinx says so
    return f"]({_repository()}/blob/main/{target.relative_to(ROOT)}{link['anchor'] or ''})"


def _repository() -> str:
    return str(yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["repository"])
