"""What a trial's starts are counted as."""

import datetime as dt
import time

import pytest
from disks import put_in_the_way

import pwfn.trial.attempts as attempts_module
from pwfn.results.store import ResultsStore
from pwfn.trial.attempts import Attempt, Attempts, cost, read_attempts


def at(seconds):
    return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)


def rounds(*ends):
    return [{"finished_at": at(end), "train_seconds": 5.0, "data_seconds": 0.5} for end in ends]


def test_an_undisturbed_trial_has_lost_nothing():
    spent = cost([Attempt(at(0), at(100))], rounds(30, 60, 100), num_gpus=2, is_lost=False)
    assert spent == (at(0), at(100), 100, 200, 0, 0, 15, 1.5)


def test_work_after_the_last_round_of_a_start_is_lost_and_its_gpus_count():
    starts = [Attempt(at(0), at(100)), Attempt(at(1000), at(1050)), Attempt(at(2000), at(2040))]
    spent = cost(starts, rounds(30, 70, 2020, 2040), num_gpus=0.5, is_lost=False)
    assert spent.wall_seconds == 70 + 0 + 40  # the second start finished no round
    assert spent.lost_seconds == 30 + 50
    assert spent.gpu_seconds == (100 + 50 + 40) / 2
    assert spent.retries == 2
    assert (spent.started_at, spent.finished_at) == (at(0), at(2040))


def test_the_last_start_of_a_trial_that_is_given_up_was_of_use_up_to_its_last_round():
    spent = cost([Attempt(at(0), at(100))], rounds(60), num_gpus=1, is_lost=True)
    assert (spent.wall_seconds, spent.lost_seconds) == (60, 40)


def test_work_that_a_checkpoint_inside_a_round_has_kept_is_not_lost():
    starts = [Attempt(at(0), at(100), at(90)), Attempt(at(1000), at(1050))]
    spent = cost(starts, rounds(30, 1050), num_gpus=1, is_lost=False)
    assert (spent.wall_seconds, spent.lost_seconds) == (90 + 50, 10)


def test_a_start_remembers_its_last_checkpoint(store):
    with Attempts(store, "0000") as attempts:
        attempts.note_checkpoint()
    (start,) = read_attempts(store, "0000")
    assert start.started_at <= start.kept_at <= start.seen_at


@pytest.fixture
def store(tmp_path):
    store = ResultsStore(str(tmp_path), "test")
    store.create()
    return store


def test_a_start_that_ends_without_a_word_has_left_signs_of_life(store, monkeypatch):
    monkeypatch.setattr(attempts_module, "SIGN_OF_LIFE_SECONDS", 0.05)
    lost = Attempts(store, "0000")
    lost.__enter__()  # and never left, as in a killed process
    time.sleep(0.3)
    (seen,) = read_attempts(store, "0000")
    assert (seen.seen_at - seen.started_at).total_seconds() >= 0.1
    lost.__exit__(None, None, None)
    with Attempts(store, "0000") as again:
        spent = again.cost(num_gpus=1)
    assert spent.retries == 1
    assert spent.lost_seconds == pytest.approx(0.3, abs=0.2)
    store.delete_attempts("0000")
    assert read_attempts(store, "0000") == []


def test_a_sign_that_cannot_be_written_is_left_out_and_nobody_waits_for_it(store, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts_module, "SIGN_OF_LIFE_SECONDS", 0.05)
    stubborn = ResultsStore(str(tmp_path), "test", patience=600)
    with Attempts(stubborn, "0000"):
        end = put_in_the_way(tmp_path, "test")
        time.sleep(0.3)
        started = time.monotonic()
    assert time.monotonic() - started < 2
    end()
    assert len(read_attempts(store, "0000")) == 1


def test_only_the_writer_writes(store):
    with Attempts(store, "0000", is_writer=False):
        pass
    assert read_attempts(store, "0000") == []


def test_a_trial_that_ran_out_of_memory_remembers_into_how_many_parts_it_splits_batches(store):
    assert store.read_micro_batches("0000") == 1
    store.write_micro_batches("0000", 4)
    assert store.read_micro_batches("0000") == 4
    store.delete_attempts("0000")
    assert store.read_micro_batches("0000") == 1
