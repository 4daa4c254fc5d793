"""A study is continued only by what began it, and says what is different; forced, it keeps a note of that."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.search.code_digests import PACKAGE, code_digests
from pwfn.search.study import MOST_SHOWN, check_inputs, open_study
from pwfn.space.space import SearchSpace
from pwfn.trial.rows import versions

SPACE = Path(__file__).parents[1] / "small_space.yaml"
INPUTS = {"digits_mlp-1": {"number of training images": "1438", "training labels": "aa"}}


@pytest.fixture
def store(tmp_path):
    return ResultsStore(str(tmp_path), "small")


def begin(store, *overrides, trials=None, force=False):
    return open_study(SearchSpace.load(SPACE, overrides, trials=trials), store, command="test", force=force)


def edit(store, **changes):
    """Have the study been begun by something else."""
    store.write_study({**store.read_study(), **changes})


def refusal(store, *overrides):
    before = Path(store.results, "small", "study.json").read_bytes()
    with pytest.raises(UserError) as caught:
        begin(store, *overrides)
    assert Path(store.results, "small", "study.json").read_bytes() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_study_records_what_it_is_made_by(store):
    begin(store)
    card = store.read_study()
    assert card["versions"] == versions()
    assert card["source"] == code_digests()
    assert card["num_trials"] == 3
    assert "forced" not in card


def test_the_same_again_is_the_same_study(store):
    begin(store)
    before = store.read_study()
    begin(store)
    assert store.read_study() == before


def test_what_changes_no_trial_may_change(store):
    begin(store)
    begin(store, "search.max_concurrent=1", trials=5)
    assert store.read_study()["num_trials"] == 5


def test_another_space_is_refused_with_the_difference(store):
    begin(store)
    assert refusal(store, "training.batch_size=32", "method.b=4") == (
        f"{store.results}/small was begun otherwise (fixed.method.b: nothing -> 4; fixed.training.batch_size: 64 -> "
        "32; start_with: [{'method.b': 7, 'method.start_sigma': 1, 'training.lr': 0.001}] -> "
        "[{'method.start_sigma': 1, 'training.lr': 0.001}]; vary.method.b.int: [3, 7] -> nothing); give this study "
        "another name with --study or another folder with --results, or mix the two with --force-resume"
    )


def test_other_code_is_refused_and_the_files_are_named(store):
    begin(store)
    source = {**store.read_study()["source"], "pwfn/methods/pwfn/posterior.py": "00000000", "pwfn/gone.py": "11111111"}
    now = code_digests()["pwfn/methods/pwfn/posterior.py"]
    edit(store, source=source, commit="0123456789ab")
    message = refusal(store)
    assert "was begun otherwise (pwfn/gone.py: 11111111 -> nothing (commit 0123456789ab -> " in message
    assert f"; pwfn/methods/pwfn/posterior.py: 00000000 -> {now});" in message


def test_another_commit_of_the_same_code_is_the_same_study(store):
    begin(store)
    edit(store, commit="0123456789ab")
    begin(store)
    assert store.read_study()["commit"] != "0123456789ab"


def test_other_packages_are_refused_by_name_and_version(store):
    begin(store)
    edit(store, versions={**versions(), "torch": "1.0"})
    assert f"(torch: 1.0 -> {versions()['torch']})" in refusal(store)


def test_many_differences_are_counted(store):
    begin(store)
    edit(store, source=dict.fromkeys(code_digests(), "00000000"))
    assert f"; and {len(code_digests()) - MOST_SHOWN} more)" in refusal(store)


def test_a_study_from_before_the_code_was_recorded_goes_on(store):
    begin(store)
    card = store.read_study()
    store.write_study({name: value for name, value in card.items() if name not in ("source", "versions")})
    begin(store)
    assert store.read_study() == card


def test_forced_it_goes_on_and_keeps_a_note(store, caplog):
    begin(store)
    edit(store, versions={**versions(), "torch": "1.0"}, inputs=INPUTS)
    with caplog.at_level(logging.WARNING):
        begin(store, "training.batch_size=32", force=True)
    assert f"batch_size: 64 -> 32; torch: 1.0 -> {versions()['torch']})" in caplog.text
    card = store.read_study()
    (note,) = card["forced"]
    assert note["differences"] == ["fixed.training.batch_size: 64 -> 32", f"torch: 1.0 -> {versions()['torch']}"]
    assert card["versions"] == versions()
    assert card["space"]["fixed"]["training"]["batch_size"] == 32
    assert card["inputs"] == INPUTS
    begin(store, "training.batch_size=32")  # what it was forced to is what it is now
    begin(store, force=True)
    assert [len(note["differences"]) for note in store.read_study()["forced"]] == [2, 1]


def test_trials_by_hand_are_no_study_to_continue(store):
    store.create()
    store.write_study({"study": "small", "command": "train.py"})
    with pytest.raises(UserError, match=r"small holds trials run by hand; give this study another name with --study$"):
        begin(store)


def test_data_is_recorded_at_first_and_refused_when_it_differs(store, caplog):
    begin(store)
    check_inputs(store, INPUTS, force=False)
    check_inputs(store, INPUTS, force=False)
    assert store.read_study()["inputs"] == INPUTS
    other = {key: {**INPUTS["digits_mlp-1"], "training labels": "bb"} for key in ("digits_mlp-1", "digits_cnn-1")}
    with pytest.raises(UserError, match=r"was begun otherwise \(training labels: aa -> bb\); give this study another"):
        check_inputs(store, other, force=False)
    assert store.read_study()["inputs"] == INPUTS
    with caplog.at_level(logging.WARNING):
        check_inputs(store, other, force=True)
    assert "(training labels: aa -> bb)" in caplog.text
    assert store.read_study()["inputs"] == other
    assert [note["differences"] for note in store.read_study()["forced"]] == [["training labels: aa -> bb"]]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, to be edited, and its digests."""
    copy = tmp_path_factory.mktemp("copy") / "pwfn"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy, code_digests(copy)


def edited(package, name, before, after):
    """The modules whose digest an edit changes."""
    folder, digests = package
    path = folder / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    try:
        again = code_digests(folder)
    finally:
        path.write_text(text)
    return {module for module in {*digests, *again} if digests.get(module) != again.get(module)}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("methods/pwfn/posterior.py", "return ", "return 0 or "),
        ("methods/wfn/method.py", "import ", "import os, "),
        ("__init__.py", "import annotations", "import annotations, division"),
        ("search/proposer.py", "multivariate=True", "multivariate=False"),
        ("export/codec.py", "return ", "return 0 or "),
    ],
)
def test_code_that_a_number_depends_on_counts(package, name, before, after):
    assert edited(package, name, before, after) == {f"pwfn/{name}"}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("methods/pwfn/posterior.py", '"""', '"""Said in other words. '),
        ("config.py", '    """', '    """Said in other words. '),
        ("training.py", "\n\n\ndef ", "\n\n\n# a comment\n\n\ndef   "),
        ("sweep/sweep.py", "verbose=0", "verbose=1"),
        ("sweep/progress.py", "return ", "return 0 or "),
    ],
)
def test_comments_docstrings_format_and_what_only_shows_or_starts_do_not_count(package, name, before, after):
    assert edited(package, name, before, after) == set()


def test_digests_are_short_and_the_same_in_any_folder(package, tmp_path):
    folder, digests = package
    shutil.copytree(folder, tmp_path / "pwfn")
    assert code_digests(tmp_path / "pwfn") == digests
    assert len(json.dumps(digests)) < 60 * len(digests)  # a path and eight digits for each module
