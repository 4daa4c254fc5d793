"""The benchmark runs, at a size that takes a moment."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "report.py"


@pytest.mark.slow
def test_a_run_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--trials", "60", "--runs", "1", "--folder", str(tmp_path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0].startswith("60 trials; ")
    cpu, _, peak, size = (float(cell) for cell in lines[-1].strip("| ").split("|"))
    assert 0 < cpu < 60
    assert 50 < peak < 2000
    assert 4.5 < size < 6
