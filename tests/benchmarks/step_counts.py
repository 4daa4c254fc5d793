"""Counts kernels and bytes of the methods' training steps beside those of a plain step, on a pretended GPU.

    python tests/benchmarks/step_counts.py
    python tests/benchmarks/step_counts.py resnet50 deit_tiny_patch16_224

Counts and no times: how many kernels a step launches, and how many float32 numbers per weight of the fixed set it moves
beyond the plain step (bfloat16, gradients per tensor, torch's clipping and fused SGD). Needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "cuda"))

from guard import compiled_guard, environment


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["cifar_resnet20", "resnet18", "resnet50"], metavar="MODEL")
    names = parser.parse_args().models
    with tempfile.TemporaryDirectory() as folder:
        guard = compiled_guard(Path(folder))
        command = [sys.executable, "-c", f"import counts; print(counts.table({names!r}))"]
        done = subprocess.run(command, env=environment(guard), check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="")


if __name__ == "__main__":
    main()
