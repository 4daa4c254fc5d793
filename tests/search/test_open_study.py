"""A study is continued only by what began it, and says what is different; forced, it keeps a note of that."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from pwfn.errors import UserError
from pwfn.float_network import baseline_key
from pwfn.results.store import ResultsStore
from pwfn.search.code_digests import PACKAGE, code_digests
from pwfn.search.study import MOST_SHOWN, check_inputs, check_study, moved_inputs, open_study
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
    """Have the study been begun by something else, and a trial have ended."""
    store.write_proposal("0000", {"trial_id": "0000", "number": 0, "params": {}})
    store.write_trial({"trial_id": "0000"})
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
    edit(store)
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
    store.write_proposal("0000", {"trial_id": "0000", "number": 0, "config": {}})
    with pytest.raises(UserError, match=r"small holds trials run by hand; give this study another name with --study$"):
        begin(store)


@pytest.mark.parametrize("force", [False, True])
def test_a_search_does_not_go_on_in_a_published_copy_and_gives_no_number_away_twice(store, tmp_path, force):
    begin(store)
    for trial_id in ("0000", "0000-r1", "0001-s0", "0001"):
        store.write_trial({"trial_id": trial_id})
    copy = store.publish(str(tmp_path / "copy"))
    with pytest.raises(
        UserError, match=r"small holds results of 3 trials without their proposals \(first 0000\), as .* --st"
    ):
        begin(copy, force=force)
    assert len(copy.read_trials()) == 4


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


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.loader_workers=1", "data.loader_timeout=9", "resources.cpus_per_worker=2"],
        ["method.max_order=4", "training.optimizer=sgd", "model.pretrained=false"],  # the defaults
        ["search.max_concurrent=3", "search.keep_models=null"],
    ],
)
def test_what_changes_no_result_stops_no_resume(store, overrides):
    begin(store)
    edit(store)
    begin(store, *overrides)
    assert "forced" not in store.read_study()


def test_a_gpu_may_be_shared_by_more_trials_but_not_replaced_by_a_cpu(store):
    begin(store, "resources.gpus_per_worker=0.5")
    edit(store)
    begin(store, "resources.gpus_per_worker=0.25")
    assert "(fixed.resources.gpus_per_worker: a GPU -> none)" in refusal(store)


def test_a_study_without_trials_is_begun_anew(store, caplog):
    begin(store)
    store.write_proposal("0000", {"trial_id": "0000", "number": 0, "params": {"method.b": 7}})
    store.write_warm_start({"folders": ["old"], "trials": []})
    with caplog.at_level(logging.INFO):
        study = begin(store, "training.batch_size=32")
    assert caplog.messages == [f"{store.results}/small has no finished round: it is begun anew"]
    assert study.proposals() == []
    assert store.read_warm_start() is None
    assert store.read_study()["space"]["fixed"]["training"]["batch_size"] == 32
    assert "forced" not in store.read_study()


def test_a_check_writes_nothing(store):
    check_study(SearchSpace.load(SPACE), store)
    assert not Path(store.results, "small").exists()
    begin(store)
    edit(store)
    before = Path(store.results, "small", "study.json").read_bytes()
    with pytest.raises(UserError, match=r"was begun otherwise \(fixed.training.batch_size: 64 -> 32\)"):
        check_study(SearchSpace.load(SPACE, ["training.batch_size=32"]), store)
    check_study(SearchSpace.load(SPACE, ["training.batch_size=32"]), store, force=True)
    assert Path(store.results, "small", "study.json").read_bytes() == before


def test_a_study_of_a_newer_program_is_refused_and_not_rewritten(store):
    begin(store)
    path = Path(store.results, "small", "study.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    before = path.read_bytes()
    for force in (False, True):
        with pytest.raises(UserError, match=r"study.json: schema_version is 99, but this program knows versions up to"):
            begin(store, force=force)
    assert path.read_bytes() == before


def test_the_same_data_may_lie_elsewhere_and_the_float_network_is_kept(store, tmp_path):
    here, there = ([f"data.root={tmp_path}/{place}/digits"] for place in ("here", "there"))
    old, new = (baseline_key(SearchSpace.load(SPACE, each).float_networks()[0]) for each in (here, there))
    begin(store, *here)
    check_inputs(store, {old: {"images": "aa"}}, force=False)
    store.write_baseline(old, b"weights", {"epochs": 3})
    edit(store)
    space = SearchSpace.load(SPACE, there)
    moved = moved_inputs(store.read_study(), space)
    assert moved == {new: old}
    with pytest.raises(UserError, match=r"was begun otherwise \(images: aa -> bb\)"):
        check_study(space, store, {new: {"images": "bb"}})
    check_study(space, store, {new: {"images": "aa"}})
    begin(store, *there)
    check_inputs(store, {new: {"images": "aa"}}, force=False, moved=moved)
    assert store.read_baseline(new) == (b"weights", {"epochs": 3})
    assert "(fixed.data.root: digits -> letters)" in refusal(store, f"data.root={tmp_path}/there/letters")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, to be edited, and its digests."""
    copy = tmp_path_factory.mktemp("copy") / "pwfn"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy, code_digests(copy)


def edited(package, edits):
    """The modules whose digest changes when each of some files is edited once."""
    folder, digests = package
    texts = {folder / name: (folder / name).read_text() for name in edits}
    for name, (before, after) in edits.items():
        assert before in texts[folder / name]
        (folder / name).write_text(texts[folder / name].replace(before, after, 1))
    try:
        again = code_digests(folder)
    finally:
        for path, text in texts.items():
            path.write_text(text)
    return {module for module in {*digests, *again} if digests.get(module) != again.get(module)}


def test_code_that_a_number_depends_on_counts(package):
    edits = {
        "methods/pwfn/posterior.py": ("return ", "return 0 or "),
        "methods/wfn/method.py": ("import ", "import os, "),
        "__init__.py": ("import annotations", "import annotations, division"),
        "search/proposer.py": ("multivariate=True", "multivariate=False"),
        "export/codec.py": ("return ", "return 0 or "),
    }
    assert edited(package, edits) == {f"pwfn/{name}" for name in edits}


def test_comments_docstrings_format_and_what_only_shows_or_starts_do_not_count(package):
    edits = {
        "methods/pwfn/posterior.py": ('"""', '"""Said in other words. '),
        "config.py": ('    """', '    """Said in other words. '),
        "training.py": ("\n\n\ndef ", "\n\n\n# a comment\n\n\ndef   "),
        "sweep/sweep.py": ("verbose=0", "verbose=1"),
        "sweep/progress.py": ("return ", "return 0 or "),
        "sweep/float_progress.py": ("return ", "return 0 or "),
    }
    assert edited(package, edits) == set()


def test_digests_are_short_and_the_same_in_any_folder(package, tmp_path):
    folder, digests = package
    shutil.copytree(folder, tmp_path / "pwfn")
    assert code_digests(tmp_path / "pwfn") == digests
    assert len(json.dumps(digests)) < 60 * len(digests)  # a path and eight digits for each module
