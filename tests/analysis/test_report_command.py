"""`pwfn report`: thin, and without what computes."""

import subprocess
import sys
from pathlib import Path

from recorded import SMALL, Record, configured, fill

WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "ray", "optuna", "timm", "pydantic", "ruamel"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Refuse())
from pwfn.commands import main
sys.exit(main(["report", *sys.argv[1:]]))
"""


def report(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", WITHOUT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_it_runs_where_torch_and_ray_are_not_installed(record: Record, tmp_path: Path) -> None:
    more = [{**configured(3 + n % 5), "val_top1": 0.8 + n / 100, "unique_values": 20 + n % 7} for n in range(15)]
    fill(record("digits", [*SMALL, *more]), [f"t{number}" for number in range(23)])  # enough to measure importance
    result = report(tmp_path, "--study", "digits")
    assert (result.returncode, result.stderr) == (0, "")
    assert "digits_cnn on digits · study digits" in result.stdout
    assert "\ndigits_cnn on digits: " in result.stdout  # the verdict
    assert "within 0.5 points" in result.stdout
    assert result.stdout.splitlines()[-1] == str(tmp_path / "results" / "digits" / "report" / "trials.csv")
    assert (tmp_path / "results" / "digits" / "report" / "front.png").exists()


def test_several_studies_go_where_they_are_asked_to(record: Record, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(record(name, SMALL), [f"t{number}" for number in range(7)])
    (tmp_path / "results" / "b" / "study.json").unlink()
    arguments = ["--study", "a", "--study", "b", "--results", str(tmp_path / "results"), "--out", "here"]
    result = report(tmp_path, *arguments)
    assert result.returncode == 0
    assert result.stderr == "note: b: study.json is missing: objectives are assumed, the plan is not known\n"
    assert (tmp_path / "here" / "front.svg").exists()


def test_a_misspelt_study_is_one_line_and_exit_code_2(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL)
    result = report(tmp_path, "--study", "digit")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"error: {tmp_path / 'results'}: no study digit; did you mean digits?\n"
