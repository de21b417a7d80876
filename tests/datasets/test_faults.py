"""Tables of other people's words."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from robosim_datasets.faults import Fault, fault_table, plain_table

WORDS = ["[/INST]", "[red]put[/red] it", ":smile: [link=file:///etc]", "[bold", "a\\[b]"]


def printed(table) -> str:
    file = io.StringIO()
    Console(file=file, width=160).print(table)
    return file.getvalue()


@pytest.mark.parametrize("words", WORDS)
def test_a_table_shows_others_words_letter_by_letter(words):
    for table in (
        plain_table((words, "b"), [("x", "y")], "title"),
        plain_table(("a", "b"), [("x", words)], "title"),
        plain_table(("a", "b"), [("x", "y" * 60)], words),
    ):
        assert printed(table).count(words) == 1


@pytest.mark.parametrize("words", WORDS)
def test_a_fault_may_name_anything(words):
    table = fault_table([Fault("schema", words, f"has {words}, say", 3)], f"{words}: a dataset's folder")
    assert printed(table).count(words) == 3


def test_faults_of_the_whole_dataset_come_first():
    faults = [Fault("black", "front", "b", 4), Fault("schema", "meta", "a"), Fault("time", "data", "c", 1)]
    lines = [line for line in printed(fault_table(faults, "x")).splitlines() if "│" in line]
    assert [line.split("│")[1].strip() for line in lines] == ["all", "1", "4"]
