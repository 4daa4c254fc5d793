"""A study has an owner: drivers at once, in real processes, on disk and at a real S3 server."""

import datetime as dt
import os
import signal
import time

import pytest
from driving import agrees, at_once, drive, prepare, start, study_of, take_number
from s3_server import S3Server

from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.sweep import ownership as leases
from pwfn.sweep.by_hand import require_by_hand
from pwfn.sweep.ownership import Driver, now, owned, read_drivers
from pwfn.sweep.process import Process


@pytest.fixture(scope="module", autouse=True)
def s3():
    with S3Server() as server:  # before the processes, which inherit the credentials
        prepare()
        yield server


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.slow)])
def results(request, tmp_path, s3):
    return str(tmp_path / "results") if request.param == "disk" else s3.uri(f"{tmp_path.name}/results")


@pytest.mark.parametrize("num_drivers", [2, 3])
def test_of_drivers_at_once_one_runs_the_study_and_the_others_are_refused_in_one_line(results, num_drivers):
    said = at_once(drive, *[(results, 1, False, 0.6)] * num_drivers)  # long enough for a busy machine
    ended = [each for each in said if each == "ended"]
    refused = [each for each in said if each.startswith("refused: ")]
    assert (len(ended), len(refused)) == (1, num_drivers - 1)
    for line in refused:
        assert "/small is run by process " in line
        assert f" on {os.uname().nodename} since 2" in line
        assert "--join" in line
        assert "\n" not in line
    assert agrees(study_of(results))


@pytest.mark.parametrize("num_drivers", [2, 3])
def test_drivers_that_join_share_the_numbers(results, num_drivers):
    said = at_once(drive, *[(results, 1, True, 0.4)] * num_drivers)
    assert all(each.startswith("ended") for each in said), said
    study = study_of(results)
    assert agrees(study)
    assert len({each["driver"] for each in study.proposals()}) > 1, said


def test_drivers_of_another_seed_do_not_join(results):
    said = at_once(drive, *[(results, seed, True, 0.3) for seed in (1, 2, 3)])
    (winner,) = [seed for seed, line in zip((1, 2, 3), said, strict=True) if line.startswith("ended")]
    assert sum("was begun otherwise (search.seed: " in line for line in said) == 2
    assert agrees(study_of(results, winner))


def test_a_driver_that_was_killed_is_followed_at_once_and_its_trials_are_finished(tmp_path):
    results = str(tmp_path)
    study = study_of(results)
    killed = start(drive, results, 1, False, 0.3)
    wait_for(lambda: len(study.store.read_trials()) >= 2)
    killed.kill()
    killed.join()
    began = time.monotonic()
    (said,) = at_once(drive, (results, 1, False))
    assert time.monotonic() - began < leases.LEASE_SECONDS / 3
    assert f"goes on in the place of process {killed.pid} on " in said
    assert "which no longer runs" in said
    assert agrees(study)


def test_the_trials_of_a_driver_that_was_killed_are_finished_by_one_that_joined(tmp_path):
    results = str(tmp_path)
    study = study_of(results)
    killed = start(drive, results, 1, False, 0.5)
    wait_for(lambda: study.store.read_trials())
    joined = start(drive, results, 1, True, 0.2)
    wait_for(lambda: len(read_drivers(study.store)) == 2)
    killed.kill()
    killed.join()
    joined.join(60)
    assert joined.exitcode == 0
    assert agrees(study)


def on_another_machine(store: ResultsStore, seconds: float):
    """The lease of a driver that cannot be seen from here, and ends in some seconds."""
    store.create()
    process = Process("elsewhere", 1, "another system", "")
    expires = now() + dt.timedelta(seconds=seconds)
    return leases._card(Driver(0, process, now(), now(), expires, joined=False, ended=False, token="theirs"))


def test_a_lease_of_another_machine_is_believed_until_it_expires(tmp_path):
    store, said = ResultsStore(str(tmp_path), "small"), []
    store.write_record("drivers/0000", on_another_machine(store, -1))
    with owned(store, join=False, say=said.append):
        assert "elsewhere since 2" in said[0]
        assert "which last renewed its lease 2" in said[0]
    store.write_record("drivers/0001", on_another_machine(store, 2))
    began, said = time.monotonic(), []
    with owned(store, join=False, say=said.append):
        assert 1 < time.monotonic() - began < 10
    assert "looking whether it still lives" in said[0]


def test_a_lease_of_another_machine_that_is_renewed_refuses(tmp_path, monkeypatch):
    store = ResultsStore(str(tmp_path), "small")
    store.write_record("drivers/0000", on_another_machine(store, 60))
    renewed = on_another_machine(store, 60)
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.1)
    with (
        pytest.raises(UserError, match=r"on elsewhere since 2.*--join"),
        owned(store, join=False, say=lambda line: store.write_record("drivers/0000", renewed)),
    ):
        pytest.fail("it was not refused")


def test_a_driver_learns_that_it_was_taken_for_gone(tmp_path, monkeypatch):
    store, lost = ResultsStore(str(tmp_path), "small"), []
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
    with owned(store, join=False, say=print) as mine:
        mine.on_lost = lost.append
        store.write_record("drivers/0001", on_another_machine(store, 60))
        wait_for(lambda: lost)
    assert "on elsewhere since 2" in lost[0]
    assert "has taken the study over" in lost[0]


def test_a_process_that_is_suspended_keeps_its_study(tmp_path, monkeypatch):
    results = str(tmp_path)
    store = study_of(results).store
    suspended = start(drive, results, 1, False, 0.3)
    wait_for(lambda: store.read_trials())
    os.kill(suspended.pid, signal.SIGSTOP)
    (driver,) = read_drivers(store)
    store.write_record("drivers/0000", leases._card(driver) | {"expires": "2020-01-01T00:00:00+00:00"})
    (said,) = at_once(drive, (results, 1, False))
    os.kill(suspended.pid, signal.SIGCONT)
    suspended.join(60)
    assert f"is run by process {suspended.pid} on" in said
    assert agrees(study_of(results))


def test_trials_by_hand_at_once_have_numbers_of_their_own(results):
    assert sorted(at_once(take_number, *[(results, seed) for seed in (1, 2, 2)])) == ["0", "1", "2"]
    store = ResultsStore(results, "by-hand")
    assert [store.read_proposal(each)["number"] for each in store.proposal_ids()] == [0, 1, 2]


def test_a_trial_by_hand_whose_process_is_gone_goes_on_under_its_number(tmp_path):
    at_once(take_number, *[(str(tmp_path), seed) for seed in (1, 2, 2)])
    assert sorted(at_once(take_number, (str(tmp_path), 2), (str(tmp_path), 2), (str(tmp_path), 7))[:2]) != ["3", "4"]
    store = ResultsStore(str(tmp_path), "by-hand")
    assert len(store.proposal_ids()) == 4  # the two of seed 2 were taken up; seed 7 is new


def test_a_trial_by_hand_takes_no_number_of_a_published_row(tmp_path):
    """A published copy has the rows of trials, not their proposals."""
    store = ResultsStore(str(tmp_path), "by-hand")
    store.create()
    for trial_id in ("0000", "0003-s0", "kmeans-8"):
        store.write_trial({"trial_id": trial_id})
    copy = store.publish(str(tmp_path / "copy"))
    assert take_number(str(tmp_path / "copy"), 0, wanted=1) == "4"
    assert {row["trial_id"] for row in copy.read_trials()} == {"0000", "0003-s0", "kmeans-8"}


def test_a_trial_by_hand_takes_no_number_of_a_search(tmp_path):
    assert at_once(drive, (str(tmp_path), 1, False)) == ["ended"]
    with pytest.raises(UserError, match=r"small is the study of a search; .* --study small-by-hand$"):
        require_by_hand(ResultsStore(str(tmp_path), "small"))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ({"number": 4}, "number is 4, but trial 0001 has another one"),
        ({"number": -1}, "number: Input should be greater than or equal to 0"),
        ({"trial_id": "0002"}, "trial_id is '0002', but the file is named after trial 0001"),
        ({"params": [1]}, "params: Input should be a valid dictionary"),
        ({"params": None}, "there must be params, or config of a trial by hand"),
    ],
)
def test_a_damaged_proposal_is_refused_in_one_line(tmp_path, damage, expected):
    assert at_once(drive, (str(tmp_path), 1, False)) == ["ended"]
    store = study_of(str(tmp_path)).store
    store.write_proposal("0001", store.read_proposal("0001") | damage)
    with pytest.raises(UserError, match=r"proposals/0001\.json: ") as caught:
        study_of(str(tmp_path)).proposals()
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_nothing_is_left_where_nothing_was_begun(tmp_path):
    store = ResultsStore(str(tmp_path / "results"), "small")
    with owned(store, join=False, say=print):
        assert (tmp_path / "results" / "small" / "drivers" / "0000.json").is_file()
    assert list(tmp_path.iterdir()) == []


def wait_for(moment) -> None:
    deadline = time.monotonic() + 60
    while not moment():
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.02)
