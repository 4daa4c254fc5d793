"""What 10,000 trials on 1,000 GPUs would ask of the driver and the store, from constants measured here.

    python tests/benchmarks/scale.py                        minutes; docs/scale.md has the results
    python tests/benchmarks/scale.py --trials 1000 --slots 100

Measured: bytes and files that a trial leaves; what a proposal takes, and the memory of the process that proposes, as
trials are recorded, with all slots running. Assumed: what else the driver does per trial (`--overhead`, of
tests/benchmarks/sweep.py), one trial after the other. The simulation then gives each free slot its next trial as soon
as the driver has come round to it; trials take between 0.5 and 1.5 times their mean.
"""

from __future__ import annotations

import argparse
import heapq
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

from clustering import resident_bytes
from printed import hardware
from report import draw_codebook

from pwfn.codebook import measure_codebook
from pwfn.results.configuration import config_columns
from pwfn.results.store import ResultsStore
from pwfn.search.proposer import Proposal, Proposer
from pwfn.space.space import SearchSpace
from pwfn.trial.rows import commit

NUM_ROUNDS = 10
MINUTES = (1, 5, 10, 30, 240)
"""Mean lengths of a trial that are simulated."""


def main() -> None:
    """Print what was measured, then the sweeps that are simulated from it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--samplers", nargs="+", default=["tpe", "nsga2", "random"])
    parser.add_argument("--overhead", type=float, default=0.14, help="seconds of the driver per trial, see above")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{hardware('cpu')}; Python {platform.python_version()}; commit {commit()}; load {os.getloadavg()[0]:.1f}\n")
    measure_store()
    for sampler in arguments.samplers:
        seconds = measure_proposals(sampler, arguments.trials, arguments.slots)
        for minutes in MINUTES:
            print(simulate(arguments.trials, arguments.slots, 60.0 * minutes, seconds, arguments.overhead), flush=True)


def measure_store() -> None:
    """Write the files of one trial as a trial does, and print their number and sizes."""
    space, rng = SearchSpace.load("resnet"), np.random.default_rng(0)
    config = space.trial_config(space.start_settings()[0], 0)
    codebook = draw_codebook(rng)
    metrics = vars(measure_codebook(codebook))
    identity = {"trial_id": "0000", "number": 0, "study": "scale", "method": "pwfn"}
    numbers = {f"sigma_q{level:02d}": float(rng.random()) for level in (5, 25, 50, 75, 95)}
    with tempfile.TemporaryDirectory() as folder:
        store = ResultsStore(folder, "scale")
        store.create()
        start = time.process_time()
        store.write_proposal("0000", {**identity, "params": space.start_settings()[0], "attributes": {}})
        for index in range(NUM_ROUNDS):
            seconds = dict.fromkeys(("train_seconds", "data_seconds", "fix_seconds", "eval_seconds"), 1.5)
            store.append_round(
                "0000", {**identity, **metrics, "method_numbers": numbers, **seconds, "round": index, "val_top1": 0.7}
            )
        store.write_values("0000", codebook)
        row = {**identity, **config_columns(config), **metrics, "state": "complete", "model": "resnet18"}
        store.write_trial({**row, "config_json": config.model_dump_json(), "failure_message": None})
        seconds = time.process_time() - start
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        sizes, blocks = (sum(getattr(p.stat(), name) for p in files) for name in ("st_size", "st_blocks"))
        print(f"a trial leaves {len(files)} files, {sizes:,} bytes ({512 * blocks:,} on this disk)")
        print(
            f"  and takes {1e3 * seconds:.0f} CPU ms to write them, {NUM_ROUNDS} rounds one by one; its network extra\n"
        )


def measure_proposals(sampler: str, num_trials: int, num_slots: int) -> dict[int, float]:
    """Measure the seconds of a proposal by the number of recorded trials, while all slots run."""
    overrides = [f"search.sampler={sampler}"]
    space = SearchSpace.load("resnet", overrides, trials=2 * num_trials)
    at_random = Proposer(SearchSpace.load("resnet", ["search.sampler=random"], trials=2 * num_trials))
    proposer, rng = Proposer(space), np.random.default_rng(0)
    before, taken = resident_bytes("VmRSS"), 0.0
    seconds: dict[int, float] = {}
    marks = sorted({num_trials // 100, num_trials // 10, num_trials // 3, num_trials - num_slots})
    print(f"{sampler}: recorded, CPU seconds per proposal, memory")
    for number in range(num_trials):
        proposal = at_random.ask()
        assert proposal is not None
        start = time.process_time()
        proposer.reopen(Proposal(number, proposal.params, {}))
        taken += time.process_time() - start
        if number >= num_slots:
            proposer.tell(number - num_slots, "complete", draw_result(rng))
        if number - num_slots in marks or number == num_trials - 1:
            start = time.process_time()
            proposer.ask()
            first = time.process_time() - start  # takes what was told up to here as well
            start = time.process_time()
            proposer.ask()
            recorded = number - num_slots
            seconds[recorded] = time.process_time() - start
            held = resident_bytes("VmRSS") - before
            print(
                f"  {recorded:7,} {seconds[recorded]:8.3f} (the first {first:.1f}) {held / 2**20:8.0f} MiB", flush=True
            )
    print(f"  taking up {num_trials:,} earlier trials: {taken:.0f} s")
    return seconds


def draw_result(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a plausible result: with fewer values, less accuracy."""
    bits = rng.uniform(2, 8)
    return {"val_top1": float(0.7 - 0.1 * (8 - bits) ** 2 / 36 - rng.exponential(0.03)), "unique_values": int(2**bits)}


def simulate(num_trials: int, num_slots: int, trial_seconds: float, proposal: dict[int, float], overhead: float) -> str:
    """Simulate trials on slots that one driver serves in turn; return how the slots were used."""
    rng = np.random.default_rng(0)
    known = sorted(proposal)
    waiting = [0.0] * num_slots  # when each slot became free
    driver_free, worked, last = 0.0, 0.0, 0.0
    for number in range(num_trials):
        cost = overhead + float(np.interp(max(0, number - num_slots), known, [proposal[each] for each in known]))
        driver_free = max(driver_free, heapq.heappop(waiting)) + cost
        length = trial_seconds * rng.uniform(0.5, 1.5)
        heapq.heappush(waiting, driver_free + length)
        worked += length
        last = max(last, driver_free + length)
    used = worked / num_slots / last
    return (
        f"  trials of {trial_seconds / 60:g} min: {last / 3600:.1f} h, {3600 * num_trials / last:,.0f} per hour, "
        f"slots used {used:.0%}"
    )


if __name__ == "__main__":
    main()
