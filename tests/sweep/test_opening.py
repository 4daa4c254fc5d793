"""Failed trials run again when a user asks for it."""

import pytest
from driving import study_of

from pwfn.errors import UserError
from pwfn.sweep.opening import forget_failed
from pwfn.sweep.searchers import OptunaSearch


@pytest.fixture
def study(tmp_path):
    """Trial 0 is complete, 1 and 2 have failed, 3 has not ended; 2 is in a compacted file."""
    study = study_of(str(tmp_path), trials=4)
    study.store.create()
    searcher = OptunaSearch(study)
    for number, failure in enumerate((None, "oom", "lost", None)):
        proposal = searcher.suggest(str(number))
        state = {"state": "complete"} if failure is None else {"state": "failed", "failure_class": failure}
        if number < 3:
            study.store.append_round(proposal["trial_id"], {"round": 0})
            study.store.write_trial({"trial_id": proposal["trial_id"], "number": number, **state})
        if number == 2:
            study.store.compact()
    return study


@pytest.mark.parametrize(
    ("chosen", "again", "words"),
    [("all", [1, 2], "2 failed trials"), ("lost", [2], "1 failed trial"), ("oom", [1], "1 failed trial")],
)
def test_they_run_again_with_their_own_parameters(study, chosen, again, words):
    said = []
    before = study.proposals()
    forget_failed(study.store, chosen, said.append)
    assert said == [f"run again: {words}, {', '.join(f'{number:04d}' for number in again)}"]
    ended = [row["trial_id"] for row in study.store.read_trials()]
    assert ended == [f"{number:04d}" for number in range(3) if number not in again]
    assert all(not study.store.read_rounds(f"{number:04d}") for number in again)
    assert study.proposals() == before
    searcher = OptunaSearch(study)
    assert [searcher.suggest(str(number))["number"] for number in range(len(again) + 1)] == [*again, 3]


def test_a_class_of_which_there_is_none_is_refused_and_the_others_are_named(study):
    with pytest.raises(
        UserError, match=r"--retry-failed nan: there is no such trial in .*; those that failed are of the "
    ):
        forget_failed(study.store, "nan", print)
    forget_failed(study.store, "all", print)
    with pytest.raises(UserError, match=r"--retry-failed: there is no such trial in .*; no trial has failed$"):
        forget_failed(study.store, "all", print)
