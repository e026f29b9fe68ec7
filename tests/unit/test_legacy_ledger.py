"""The books over a legacy or a new store: whatever differs from what Telegram published is named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.legacy import settings
from tests.legacy.ledger import Kept, Key, Published, account

KEY = (-1001500000001, 7)
SIGNAL = "ATIVO: PETR4\nCOMPRA: 28,50"
PROCESSED = Kept(SIGNAL, False, True)


@pytest.mark.parametrize(
    ("deleted", "rows", "signals", "wrong"),
    [
        (False, [PROCESSED], 1, set()),
        (False, [], 0, {"lost"}),
        (False, [Kept("before", False, True)], 1, {"different"}),
        (False, [Kept(SIGNAL, True, True)], 1, {"different"}),
        (False, [Kept("before", False, True), Kept(SIGNAL, False, False)], 1, {"doubled"}),
        (False, [Kept(SIGNAL, False, False)], 0, {"unprocessed"}),
        (False, [PROCESSED], 0, {"signals_lost"}),
        (False, [PROCESSED], 2, {"signals_doubled"}),
        (True, [], 0, set()),
        (True, [Kept(SIGNAL, True, False)], 0, set()),
        (True, [PROCESSED], 1, {"undeleted"}),
        (True, [Kept(SIGNAL, True, True), PROCESSED], 1, {"undeleted"}),
    ],
)
def test_what_differs_is_named(deleted: bool, rows: list[Kept], signals: int, wrong: set[str]) -> None:
    counted: Counter[Key] = Counter({KEY: signals})
    found = account({KEY: Published(SIGNAL, deleted)}, {KEY: rows} if rows else {}, counted)
    assert {name for name, value in vars(found).items() if value == [KEY]} == wrong
    assert found.clean() is not bool(wrong)


def test_settings_name_what_they_lack(tmp_path: Path) -> None:
    given = 'TELEGRAM_API_ID=1\n# no\nTELEGRAM_API_HASH="x"\nTELEGRAM_GATEWAY_API_TOKEN=t\n'
    (tmp_path / ".env").write_text(given)
    with pytest.raises(KeyError, match="TELEGRAM_GATEWAY_DB_URL"):
        settings.read(tmp_path / ".env")
    (tmp_path / ".env").write_text(f"{given}TELEGRAM_GATEWAY_DB_URL=postgresql://a:b=c@h/d\n")
    read = settings.read(tmp_path / ".env")
    assert (read.api_hash, read.signals_database, read.gateway_port) == ("x", "postgresql://a:b=c@h/d", 4006)
