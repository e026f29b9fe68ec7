"""`make requirements`: which numbered requirements a test names."""

from pathlib import Path

from tools.requirements import named, stated


def test_a_requirement_is_a_numbered_line() -> None:
    assert stated("intro GW-09\n* GW-01 systemd unit\n* no number\n* DB-02 Least privilege\n") == {
        "GW-01": "systemd unit",
        "DB-02": "Least privilege",
    }


def test_marks_name_one_or_more_requirements(tmp_path: Path) -> None:
    mark = "requirement"
    (tmp_path / "test_a.py").write_text(f'@pytest.mark.{mark}("GW-01")\n@pytest.mark.{mark}("DB-02", "PB-01")\n')
    (tmp_path / "helper.py").write_text(f'@pytest.mark.{mark}("GW-09")\n')
    assert named(tmp_path) == {"GW-01", "DB-02", "PB-01"}
