"""The benchmark runs: ten rounds at a small size, and its own comparison with the dense implementation."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "clustering.py"


def test_prints_a_row_per_size_and_the_dense_ratio() -> None:
    command = [sys.executable, str(BENCHMARK), "--sizes", "1e4", "2e4", "--dense-size", "2e3"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert "torch" in output[0]
    assert [line.split()[0] for line in output[3:5]] == ["10,000", "20,000"]
    assert output[5].startswith("dense C x N at 2,000 weights")
