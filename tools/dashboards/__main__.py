"""Writes the role's templates of the dashboards, and where alerts link to. usage: python -m tools.dashboards"""

from __future__ import annotations

from pathlib import Path

from tools.dashboards.build import template
from tools.dashboards.pages import PAGES, homes

ROLE = Path(__file__).resolve().parents[2] / "roles" / "monitoring"


def files() -> dict[Path, str]:
    """What belongs into each file."""
    found = {ROLE / "templates" / "dashboards" / f"{page.name}.json.j2": template(page) for page in PAGES}
    head = (
        "# Made by `python -m tools.dashboards`: the panel of Grafana that explains each alert.\n_monitoring_panels:\n"
    )
    links = "".join(f"  {alert}: {where}\n" for alert, where in homes().items())
    return found | {ROLE / "vars" / "main" / "panels.yml": head + links}


def main() -> None:
    """Write them all."""
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
