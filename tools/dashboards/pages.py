"""All the pages, and which panel explains which alert."""

from __future__ import annotations

from tools.dashboards import database, gateway, hosts, overview, rabbitmq, redis, slo
from tools.dashboards.page import Page

PAGES: tuple[Page, ...] = (overview.PAGE, gateway.PAGE, database.PAGE, redis.PAGE, rabbitmq.PAGE, hosts.PAGE, slo.PAGE)


def homes() -> dict[str, str]:
    """Where each alert's link leads, as the end of an address at Grafana. The overview comes last."""
    found: dict[str, str] = {}
    for page in (*PAGES[1:], PAGES[0]):
        for number, panel in page.numbered():
            for alert in panel.tells:
                found.setdefault(alert, f"{page.uid}?viewPanel={number}")
    return dict(sorted(found.items()))
