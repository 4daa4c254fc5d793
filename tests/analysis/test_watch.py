"""The report made again and again while a study goes on."""

import itertools
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from recorded import SMALL, Record

from analysis import AnalysisError, watch
from pwfn.results.store import ResultsStore

ROOT = Path(__file__).parents[2]
CARD = {"study": "digits", "objectives": {"val_top1": "maximize", "unique_values": "minimize"}, "num_trials": 3}


def end_trial(store: ResultsStore, number: int) -> None:
    place = {"method": "pwfn", "model": "digits_cnn", "data": "digits", "float_val_top1": 0.98}
    store.write_trial({"trial_id": f"t{number}", "number": number, "state": "complete", **place, **SMALL[number]})


def test_it_is_made_again_when_a_trial_has_ended_and_ends_with_the_last(record: Record, tmp_path: Path) -> None:
    store = record("digits", SMALL[:1], CARD)
    store.write_proposal("t9", {"number": 9})
    out = tmp_path / "report"
    lines = watch([str(tmp_path / "results" / "digits")], str(out), seconds=0.01)
    assert next(lines).endswith(f"  digits: 1 of 3 trials ended, 0 running: {out}/report.html")
    first = (out / "report.html").read_text()
    end_trial(store, 1)
    assert "digits: 2 of 3 trials ended" in next(lines)
    end_trial(store, 2)
    assert "digits: 3 of 3 trials ended" in next(lines)
    assert (out / "report.html").read_text() != first
    timer = threading.Timer(0.3, lambda: store.write_trial({"trial_id": "t9", "number": 9, "state": "failed"}))
    timer.start()  # a replicate, say: it was begun, so it is waited for
    assert "digits: 4 trials ended" in next(lines)
    with pytest.raises(StopIteration):
        next(lines)


def test_a_study_that_is_not_there_is_an_error_and_later_trouble_is_a_line(record: Record, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="no study digits"):
        next(watch([str(tmp_path / "results" / "digits")], str(tmp_path / "out"), seconds=0.01))
    store = record("digits", SMALL[:1], CARD)
    lines = watch([str(tmp_path / "results" / "digits")], str(tmp_path / "out"), seconds=0.01)
    next(lines)
    aside = Path(store.results).rename(tmp_path / "aside")
    assert next(lines).endswith("there is none yet; trying again")
    aside.rename(store.results)
    end_trial(store, 1)
    assert "2 of 3 trials ended" in next(line for line in lines if "trying again" not in line)


def launch(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "launchers" / "report.py"), "--study", "digits", "--watch", "0.1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)


@pytest.mark.slow
def test_the_page_is_whole_at_any_moment_and_the_command_ends_by_itself(record: Record, tmp_path: Path) -> None:
    store = record("digits", [], CARD)
    process = launch(tmp_path)
    assert process.stdout is not None
    assert "digits: 0 of 3 trials ended, 0 running: " in process.stdout.readline()
    page = tmp_path / "results" / "digits" / "report" / "report.html"
    num_seen = 0
    for number in itertools.count():
        if number < 3:
            end_trial(store, number)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline and process.poll() is None:
            assert page.read_text().rstrip().endswith("</html>")
            num_seen += 1
        if process.poll() is not None:
            break
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert num_seen > 10
    assert "digits: 3 of 3 trials ended" in output
    assert output.splitlines()[-1].endswith("trials.csv")


def test_ctrl_c_ends_it_with_the_last_report(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL[:2], CARD)
    process = launch(tmp_path)
    assert process.stdout is not None
    assert "2 of 3" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert output.splitlines()[-1].endswith("trials.csv")
