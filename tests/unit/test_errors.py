"""Sentences stay sentences, however much there is to list."""

import logging

from equiscape.configuration.printing import FILES, LETTERS, Shortened
from equiscape.errors import DataError, listed


def test_a_list_names_the_first_and_counts_the_rest():
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(range(7102)).endswith("9, 10, 11 and 7090 more")
    assert listed("abc", 2) == "a, b and 1 more"


def test_a_sentence_of_foreign_length_loses_its_middle():
    text = str(DataError("the start " + "x" * 156_000 + " the end"))
    assert len(text) < 2100
    assert text.startswith("the start x")
    assert text.endswith("x the end")


def test_snakemakes_lines_list_a_few_files():
    files = [f"clouds/{number}.off" for number in range(7102)]
    record = logging.makeLogRecord(
        {
            "input": list(files),
            "output": ["one"],
            "reason": "Updated input files: " + ", ".join(files),
        }
    )
    assert Shortened().filter(record)
    assert record.input[:FILES] == files[:FILES]
    assert record.input[FILES:] == ["and 7082 more"]
    assert record.output == ["one"]
    assert len(record.reason) < LETTERS + 20


def test_a_traceback_is_left_as_it_is():
    text = "\n".join(f"  line {number}, in f, g, h" for number in range(500))
    record = logging.makeLogRecord({"msg": text})
    Shortened().filter(record)
    assert record.msg == text
