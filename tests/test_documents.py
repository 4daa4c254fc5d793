"""What the documents for developers name is there: files and tests."""

import re
from pathlib import Path
from typing import get_args

import pytest

from pwfn.config import DataConfig
from pwfn.space.declaration import Sampler

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/tutorial.md", "pwfn/README.md")
FOLDERS = ("pwfn", "analysis", "launchers", "tests", "search_spaces", "docs")
EXAMPLES = re.compile(r"\bmine\b|mine_|_mine|TRIAL|KEY|STUDY")
"""Names in recipes, and of the files of a trial: they stand for whatever the reader has."""


def code_in(document: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", (ROOT / document).read_text()))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_are_there(document):
    files = [path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    named = {name for code in code_in(document) for name in re.findall(r"[\w./-]+\.(?:py|yaml|js)\b", code)}
    named = {name for name in named if not EXAMPLES.search(name)}
    assert not [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)]
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / document).read_text())
    assert not [link for link in links if not (ROOT / document).parent.joinpath(link).exists()]


def test_tests_that_the_map_of_the_papers_names_are_there():
    named = {code for code in code_in("pwfn/README.md") if re.fullmatch(r"test_\w+", code)}
    there = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert not [name for name in named if f"def {name}(" not in there]


def test_the_guide_is_short_enough_to_be_read():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 80


def test_readme_names_every_sampler():
    [row] = [line for line in (ROOT / "README.md").read_text().splitlines() if "`search: {sampler:" in line]
    assert set(re.findall(r"`(\w+)`", row)) >= set(get_args(Sampler))


@pytest.mark.parametrize("document", ["README.md", "docs/data.md"])
def test_every_data_source_is_named(document):
    names = get_args(DataConfig.model_fields["name"].annotation)
    text = (ROOT / document).read_text()
    assert not [name for name in names if f"`{name}`" not in text]
