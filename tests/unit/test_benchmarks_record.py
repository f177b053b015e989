"""Pages about a study take their tables from its results."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def record(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import record

    yield record
    sys.modules.pop("record")


def test_marked_tables_are_replaced_and_the_rest_is_left(record, tmp_path):
    (tmp_path / "cost.md").write_text("# Time\n\nMeans.\n\n## By task\n\n| a |\n|:--|\n| 1 |\n")
    page = "# P\n\nText.\n\n<!-- table: cost -->\nold # text\n<!-- end of table -->\n\nEnd.\n"
    new = record.updated(page, tmp_path)
    assert new == (
        "# P\n\nText.\n\n<!-- table: cost -->\n\n## Time\n\nMeans.\n\n### By task\n\n"
        "| a |\n|:--|\n| 1 |\n\n<!-- end of table -->\n\nEnd.\n"
    )
    assert record.updated(new, tmp_path) == new


def test_a_page_without_marks_and_a_table_that_is_absent_are_refused(record, tmp_path):
    with pytest.raises(ValueError, match="no <!-- table"):
        record.updated("# P\n", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"rank\.md"):
        record.updated(
            "<!-- table: rank --><!-- end of table -->".replace("--><", "-->\n<"), tmp_path
        )


@pytest.mark.parametrize("page", sorted(BENCHMARKS.glob("*.md")), ids=lambda page: page.stem)
def test_every_mark_of_the_pages_is_closed(record, page):
    text = page.read_text()
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->")
    assert len(record.MARKED.findall(text)) == text.count("<!-- table: ")
