"""What study.json says was understood reaches the page and the Markdown."""

from analysis.understood import understood

LINES = [["data", "image files under /pets"], ["classes", "2, names: 0 cat, 1 <dog>"]]


def test_each_line_once_for_all_networks_of_a_study():
    card = {"understood": {"a": {"lines": LINES}, "b": {"lines": [*LINES, ["network", "resnet18"]]}}}
    assert understood(card) == [*map(tuple, LINES), ("network", "resnet18")]


def test_a_card_without_or_with_something_else():
    for card in ({}, {"understood": None}, {"understood": {"a": 3}}, {"understood": {"a": {"lines": [["x"], "y"]}}}):
        assert understood(card) == []
