"""A handler of one's own: the example, built and installed as a package, works in the worker's transaction."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from tests.integration.consumers import World, channel, needs_servers, recent, rows, world
from tests.integration.servers import ROOT, until
from tests.integration.workers import Rows, status
from tests.unit.test_wheelhouse import wheelhouse

from telegram_stack import events

__all__ = ["channel", "rows", "world"]  # fixtures

pytestmark = needs_servers

EXAMPLE = ROOT / "examples" / "handler-keywords"


def install(folder: Path, target: Path) -> None:
    """Build the example's wheel and install it into `target`, as docs/worker.md says."""
    python = wheelhouse.tools(wheelhouse.cache_folder())
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, EXAMPLE]
    subprocess.run([python, "-m", "pip", "-q", *map(str, build)], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    options = ["install", "--no-index", "--no-deps", "--target", target, wheel]
    subprocess.run([python, "-m", "pip", "-q", *map(str, options)], check=True, timeout=120)


@pytest.mark.requirement("WK-07")
async def test_the_example_is_installed_and_its_effects_are_committed_with_the_marks(
    world: World, rows: Rows, channel: int, tmp_path: Path
) -> None:
    process = world.process()
    handlers = tmp_path / "handlers"
    settings = f'handler = "keywords"\nhandler_path = "{handlers}"\n'
    process.config.write_text(settings + process.config.read_text())
    try:
        refused = process.start("--check")
        assert b'handler = "keywords" is not installed; installed: signals' in refused.communicate(timeout=30)[1]
        (tmp_path / "wheel").mkdir()
        await asyncio.to_thread(install, tmp_path / "wheel", handlers)
        with world.database.connect() as connection:
            connection.execute("DROP SCHEMA IF EXISTS keywords CASCADE")
            connection.execute("SET ROLE telegram_owner")
            connection.execute((EXAMPLE / "schema.sql").read_text())
            process.start()
            await until(lambda: status(process.port)[0] == 200, 20)
            texts = {1: "Fusão e dividendo", 2: "Bom dia", 3: "split"}
            await world.keep(*(recent(channel, number, text=text) for number, text in texts.items()))
            await until(lambda: len(rows.states()) == 3)
            edit = recent(channel, 3, text="nada", version=20, kind="edit", edit_date=events.utc_now())
            await world.keep(edit)
            await until(lambda: rows.mark(3)[0] == 20)
            kept = "SELECT message_id, version, words, xmin::text FROM keywords.hits ORDER BY 1"
            hits = connection.execute(kept).fetchall()
    finally:
        process.close()
    assert rows.states() == {1: "published", 2: "ignored", 3: "published"}
    assert rows.metadata(2)["reason"] == "no keyword"
    assert [row[:3] for row in hits] == [(1, 10, ["dividendo", "fusão"]), (3, 20, [])]
    assert [row[3] for row in hits] == [rows.mark(1)[1], rows.mark(3)[1]]  # the very transaction of the mark
