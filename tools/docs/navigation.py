"""What stands where in the site's side bar."""

from __future__ import annotations

from collections.abc import Iterable

from tools.docs import DOCS

GUIDES = (
    "architecture", "deployment", "several-hosts", "migration", "monitoring", "troubleshooting", "backup", "cache",
    "performance", "database-operations", "api", "console", "security",
)  # fmt: skip
PARTS = ("gateway", "queue", "worker", "database")
DEVELOPMENT = ("development", "development-targets", "simulator", "requirements")


def tables_of_contents() -> str:
    """The side bar, which Sphinx reads at the end of the first page."""
    return "\n\n".join(
        (
            _contents("Guides", GUIDES),
            _contents("Parts", PARTS),
            _contents("Reference", ("reference/index", "metrics")),
            _contents("Figures", [*_matching("benchmarks*.md"), "faults", "alerts"]),
            _contents("Development", DEVELOPMENT),
            _contents("Decisions", _matching("adr/*.md")),
        )
    )


def contents(pages: Iterable[str], caption: str = "") -> str:
    """A hidden table of contents: it is for the side bar."""
    entries = "\n".join(pages)
    title = f":caption: {caption}\n" if caption else ""
    return f"```{{toctree}}\n:hidden:\n:maxdepth: 1\n{title}\n{entries}\n```"


def _contents(caption: str, pages: Iterable[str]) -> str:
    return contents(pages, caption)


def _matching(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.glob(pattern))
