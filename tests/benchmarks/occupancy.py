"""Measures in which share of a sweep's slots and time trials compress networks, and what the rest is used for.

    python tests/benchmarks/occupancy.py                                        the digits sweep, two slots
    python tests/benchmarks/occupancy.py --space cifar10.yaml --slots 8 --set resources.gpus_per_worker=0.25

Runs the launcher as a user does and reads the study it leaves. All shares are of slots times elapsed seconds, from the
command's start to its end. `rounds`: training, fixing and measuring, as their rows say. `rest of trials`: to build
the network, read the float one, measure the test images, export. `between trials`: a slot waits for its next trial.
`start`: imports, Ray, the float network. `tail`: no trial is left for a slot while others still run. `report`: after
the last trial. Fails below a share of rounds of `--limit`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

from printed import hardware

from pwfn.results.store import ResultsStore
from pwfn.trial.rows import commit

LAUNCHER = Path(__file__).parents[2] / "launchers" / "search.py"
STUDY = "occupancy"
IN_ROUNDS = ("train_seconds", "fix_seconds", "eval_seconds")


def main() -> None:
    """Print the shares; fail below the limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", default="digits.yaml")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--slots", type=int, default=2, help="trials at once")
    parser.add_argument("--limit", type=float, default=0.9, help="smallest share of rounds that passes")
    parser.add_argument("--set", nargs="+", default=[], dest="overrides")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{hardware(device)}, commit {commit()}; load {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, str(LAUNCHER), "--space", arguments.space, "--study", STUDY, "--results", results]
        command += ["--trials", str(arguments.trials)] if arguments.trials else []
        overrides = [*arguments.overrides, f"search.max_concurrent={arguments.slots}"]
        began = time.time()
        subprocess.run([*command, "--set", *overrides], check=True, stdout=subprocess.DEVNULL)
        shares = account(ResultsStore(results, STUDY), arguments.slots, began, time.time())
    for name, share in shares.items():
        print(f"{name:>15} {share:7.3f}")
    if shares["rounds"] < arguments.limit:
        sys.exit(f"the slots compress networks for less than {arguments.limit:.0%} of the time")


def account(store: ResultsStore, num_slots: int, began: float, ended: float) -> dict[str, float]:
    """Divide slots times seconds into shares, which sum to 1; `training` is part of `rounds` and not counted."""
    trials: list[dict[str, Any]] = store.read_trials()
    rounds = store.read_all_rounds()
    first = min(row["started_at"].timestamp() for row in trials)
    ends = sorted(row["finished_at"].timestamp() for row in trials)
    inside = sum(row["wall_seconds"] for row in trials)
    in_rounds = sum(row[name] for row in rounds for name in IN_ROUNDS)
    tail = sum(ends[-1] - end for end in ends[-num_slots:])
    seconds = {
        "rounds": in_rounds,
        "rest of trials": inside - in_rounds,
        "between trials": num_slots * (ends[-1] - first) - tail - inside,
        "start": num_slots * (first - began),
        "tail": tail,
        "report": num_slots * (ended - ends[-1]),
        "training": sum(row["train_seconds"] for row in rounds),
    }
    print(f"{len(trials)} trials on {num_slots} slots in {ended - began:.0f} s, {inside / len(trials):.2f} s per trial")
    return {name: part / num_slots / (ended - began) for name, part in seconds.items()}


if __name__ == "__main__":
    main()
