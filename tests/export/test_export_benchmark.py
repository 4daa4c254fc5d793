"""The benchmark runs, at a size that takes a moment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "export.py"


@pytest.mark.slow
def test_a_row_is_measured_against_the_entropy():
    command = [sys.executable, str(BENCHMARK), "--weights", "200000", "--one", "scales alike"]
    kind, bits, ratio, *_ = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert kind == "scales alike"
    assert 4 < float(bits) < 5
    assert 1 <= float(ratio) < 1.02
