"""The file of rows, cut off anywhere."""

from __future__ import annotations

from vos_deploy.benchmarks.gpu.journal import Journal


def test_killed_at_any_byte(tmp_path):
    """Whatever is left of the file is read, and can be gone on with."""
    journal = Journal(tmp_path / "rows.jsonl")
    journal.start("a")
    journal.add("a", {"text": "α"})
    journal.end("a", "done")
    journal.start("b")
    journal.add("b", {"value": 2})
    whole = (tmp_path / "rows.jsonl").read_bytes()
    for length in range(len(whole) + 1):
        cut = Journal(tmp_path / "cut.jsonl")
        (tmp_path / "cut.jsonl").write_bytes(whole[:length])
        before = cut.read()
        assert all(a.rows in ([], [{"text": "α"}], [{"value": 2}]) for a in before.values())
        cut.start("c")
        assert [*cut.read()] == [*before, "c"]


def test_rows_of_an_earlier_try_no_longer_count(tmp_path):
    journal = Journal(tmp_path / "rows.jsonl")
    journal.start("a")
    journal.add("a", {"value": 1})
    journal.end("a", "failed", "no room")
    journal.start("a")
    journal.add("a", {"value": 2})
    (attempt,) = journal.read().values()
    assert (attempt.state, attempt.rows, attempt.words) == ("running", [{"value": 2}], "")
