"""Which migrations run, in which order, and which sets of files are refused: no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from plugins.module_utils.postgresql_migrations import (
    Migration,
    MigrationError,
    interrupted,
    parse,
    pending,
    select,
    split,
)

SQL = Path(__file__).resolve().parents[2] / "sql"
ENGINES = ("native", "timescale", "timescale_apache")


def files(*names: str) -> list[Migration]:
    return [parse(name, f"SELECT '{name}';") for name in names]


def ledger(*applied: Migration) -> dict[str, str]:
    return {file.name: file.checksum for file in applied}


def shipped(engine: str) -> list[Migration]:
    paths = sorted(SQL.rglob("*.sql"))
    return select([parse(str(path.relative_to(SQL)), path.read_text(encoding="utf-8")) for path in paths], engine)


def test_a_name_gives_number_and_engine() -> None:
    common, native = files("0001_channels.sql", "engine/native/0002_messages.sql")
    assert (common.number, common.engine) == (1, None)
    assert (native.number, native.engine) == (2, "native")


@pytest.mark.parametrize(
    "name", ["1_x.sql", "0001-x.sql", "0001_X.sql", "0001_x.txt", "other/0001_x.sql", "../0001_x.sql", "0001_.sql"]
)
def test_a_name_that_has_no_place_is_refused(name: str) -> None:
    with pytest.raises(MigrationError, match=r"use a name like NNNN_words\.sql"):
        parse(name, "")


def test_the_header_says_how_a_file_runs() -> None:
    plain = parse("0001_x.sql", "SELECT 1;")
    assert plain.transaction and not plain.run_as_login
    special = parse("0001_x.sql", "-- Engine: all\n-- transaction: no\n-- run-as: login\nSELECT 1;")
    assert not special.transaction and special.run_as_login


def test_a_header_below_the_first_statement_is_a_comment() -> None:
    assert parse("0001_x.sql", "SELECT 1;\n-- transaction: no\n").transaction


def test_a_header_with_an_unknown_value_is_refused() -> None:
    with pytest.raises(MigrationError, match=r"0001_x\.sql: header transaction is maybe; allowed: yes, no"):
        parse("0001_x.sql", "-- transaction: maybe\n")


def test_an_engine_runs_the_common_files_and_its_own_in_one_order() -> None:
    given = files("0003_c.sql", "engine/native/0002_b.sql", "engine/timescale/0002_b.sql", "0001_a.sql")
    assert [file.name for file in select(given, "native")] == ["0001_a.sql", "engine/native/0002_b.sql", "0003_c.sql"]
    assert [file.name for file in select(given, None)] == ["0001_a.sql", "0003_c.sql"]


def test_two_files_of_one_number_are_refused() -> None:
    with pytest.raises(MigrationError, match="same number"):
        select(files("0001_a.sql", "engine/native/0001_b.sql"), "native")


def test_what_the_ledger_lacks_is_pending() -> None:
    first, second, third = files("0001_a.sql", "0002_b.sql", "0003_c.sql")
    assert pending([first, second, third], ledger(first)) == [second, third]
    assert pending([first], ledger(first)) == []


@pytest.mark.requirement("DB-05")
def test_a_changed_file_is_refused_with_both_checksums() -> None:
    (old,) = files("0001_a.sql")
    new = parse("0001_a.sql", "SELECT 'something else';")
    with pytest.raises(MigrationError) as refusal:
        pending([new], ledger(old))
    assert "0001_a.sql was changed" in str(refusal.value)
    assert old.checksum in str(refusal.value)
    assert new.checksum in str(refusal.value)


@pytest.mark.requirement("DB-05")
def test_a_file_that_comes_too_late_is_refused() -> None:
    first, second, third = files("0001_a.sql", "0002_b.sql", "0003_c.sql")
    with pytest.raises(
        MigrationError, match=r"0002_b\.sql .* comes too late: 0003_c\.sql .* is already applied"
    ) as refusal:
        pending([first, second, third], ledger(first, third))
    assert second.checksum in str(refusal.value)
    assert third.checksum in str(refusal.value)


def test_a_database_newer_than_the_files_is_refused() -> None:
    first, second = files("0001_a.sql", "0002_b.sql")
    with pytest.raises(MigrationError, match=r"0002_b\.sql was applied to this database but is not among the files"):
        pending([first], ledger(first, second))


def test_a_file_that_was_begun_is_pending_and_may_have_been_mended() -> None:
    first, second, third = files("0001_a.sql", "0002_b.sql", "0003_c.sql")
    todo = pending([first, second, third], ledger(first))
    assert interrupted(todo, {}) == []
    assert interrupted(todo, {"0002_b.sql": "the checksum before it was mended"}) == [second]


def test_a_file_that_was_begun_and_is_gone_is_refused() -> None:
    first, second = files("0001_a.sql", "0002_b.sql")
    with pytest.raises(
        MigrationError, match=rf"0002_b\.sql \({second.checksum}\) was begun on this database, not finished"
    ):
        interrupted(pending([first], {}), ledger(second))


@pytest.mark.parametrize("word", ["BEGIN", "commit", "ROLLBACK", "START TRANSACTION", "END", "SAVEPOINT a"])
def test_a_file_that_would_cut_its_transaction_in_two_is_refused(word: str) -> None:
    script = f"SELECT 1;\n{word};\nSELECT 2;"
    first = word.split(maxsplit=1)[0].upper()
    with pytest.raises(MigrationError, match=rf"0001_a\.sql, line 2: {first} has no place in a file"):
        parse("0001_a.sql", script)
    assert not parse("0001_a.sql", f"-- transaction: no\n{script}").transaction
    assert parse("0001_a.sql", f"DO $$ BEGIN\n{word};\nEND $$").transaction


def test_line_ends_do_not_change_a_checksum() -> None:
    assert parse("0001_a.sql", "A\nB\n").checksum == parse("0001_a.sql", "A\r\nB").checksum
    assert parse("0001_a.sql", "A\nB\n").checksum != parse("0001_a.sql", "A B").checksum


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'a;b', 'it''s; fine'",
        "SELECT E'it\\'s; fine'",
        'SELECT ";" FROM "a""b;c"',
        "DO $$ BEGIN; END $$",
        "DO $body$ SELECT $$;$$; $body$",
        "SELECT 1 /* ; */ -- ;\n+ 1",
    ],
)
def test_a_semicolon_inside_something_ends_nothing(statement: str) -> None:
    assert [part.text for part in split(f"{statement};\nSELECT 2;")] == [statement, "SELECT 2"]


def test_statements_know_their_lines() -> None:
    script = "-- header\n\nSELECT 1;\n\n/* two\n   lines */\nSELECT\n  2; SELECT 3;\n-- the end\n"
    assert [(part.line, part.text) for part in split(script)] == [(3, "SELECT 1"), (7, "SELECT\n  2"), (8, "SELECT 3")]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_shipped_files_make_one_sequence_without_a_hole(engine: str) -> None:
    numbers = [file.number for file in shipped(engine)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_message_table_has_the_same_columns_on_each_engine() -> None:
    tables = set()
    for engine in ENGINES:
        text = (SQL / "engine" / engine / "0003_messages.sql").read_text(encoding="utf-8")
        tables.add(text[text.index("CREATE TABLE telegram.messages (") : text.index("\n)")])
    assert len(tables) == 1


def test_no_function_needs_the_superuser_but_in_the_file_for_it() -> None:
    for engine in ENGINES:
        assert [file.name for file in shipped(engine) if file.run_as_login] == ["0001_superuser_parts.sql"]
