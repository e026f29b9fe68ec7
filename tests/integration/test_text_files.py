"""Module text_files: many small files in one step."""

from __future__ import annotations

from pathlib import Path

from tests.integration.modules import failure, run, success


def test_files_are_written_once_and_their_rights_kept(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    given = {"files": {str(one): "ação\n", str(two): ""}, "mode": "0640"}
    foreseen = success(run("text_files", given, check=True))
    assert foreseen["changed"]
    assert foreseen["paths"] == [str(one), str(two)]
    assert not one.exists()

    success(run("text_files", given))
    assert one.read_text() == "ação\n"
    assert two.read_bytes() == b""
    assert {path.stat().st_mode & 0o777 for path in (one, two)} == {0o640}
    assert not success(run("text_files", given))["changed"]

    two.chmod(0o600)
    one.write_text("other\n")
    said = success(run("text_files", given))
    assert said["paths"] == [str(one), str(two)]
    assert said["diff"][0]["before"] == "other\n"
    assert said["diff"][0]["after"] == "ação\n"
    assert two.stat().st_mode & 0o777 == 0o640


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = failure(run("text_files", {"files": {str(tmp_path / "nowhere" / "one"): "text"}}))
    assert "nowhere" in said


def test_a_file_that_a_command_refuses_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    given = {"files": {str(file): "{}"}, "validate": "python3 -m json.tool %s"}
    success(run("text_files", given))
    said = failure(run("text_files", {**given, "files": {str(file): "{"}}))
    assert said.startswith(f"{file} was not written, because python3 -m json.tool %s refuses it: ")
    assert file.read_text() == "{}"
