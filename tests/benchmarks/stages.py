"""Compares one training in stages of fewer and fewer values with one training for each number of values.

    python tests/benchmarks/stages.py --results results/stages                                        the digits
    PWFN_DATA=/path/to/data python tests/benchmarks/stages.py --space qat_cifar10 --seeds 3 \
        --lr-ratios 1 1 3 4 6 --set training.steps_per_epoch=40 --results results/stages_cifar10     ResNet-20

Contestants: one trial with all stages; a trial for each number of values with as many training steps in all; the same
with twice as many. All start from the same float network, and a number of values has the same learning rate in all
three (`--lr-ratios`, in units of `training.lr`). Columns: hypervolume of the points by test accuracy and
distinct values (share of the box that docs/report.md names), training seconds, and both as a difference from, or a
ratio to, the first contestant: mean and standard deviation over the seeds, each ratio within one seed. Trials that are
in `--results` are read from there: the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import pandas as pd
import torch
from printed import conditions, spread
from straight_through import recorded

from analysis.front import hypervolume
from pwfn.config import TrialConfig
from pwfn.results.store import ResultsStore
from pwfn.space.space import SearchSpace

OBJECTIVES = {"test_top1": "maximize", "unique_values": "minimize"}


def main() -> None:
    """Print a row for each contestant."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", default="qat_digits", help="network, data and training are its own")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="changes of it for all trials")
    parser.add_argument("--values", nargs="*", type=int, default=[16, 8, 4, 3, 2])
    parser.add_argument("--rounds", type=int, default=3, help="of each stage")
    parser.add_argument("--lr-ratios", nargs="*", type=float,
                        help="learning rate for each of --values, in units of training.lr (default: 1)")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", default="results/stages")
    arguments = parser.parse_args()
    ratios = arguments.lr_ratios or [1.0] * len(arguments.values)
    if len(ratios) != len(arguments.values):
        parser.error(f"--lr-ratios: {len(ratios)} ratios for {len(arguments.values)} --values; give one for each")
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(f"{conditions()}; {arguments.seeds} seeds; {arguments.space}", *arguments.set)
    print(f"\n{'':30}{'hypervolume':>18}{'difference':>20}{'seconds':>16}{'ratio':>14}")
    spaces = [SearchSpace.load(arguments.space, arguments.set, seed=seed) for seed in range(arguments.seeds)]
    stores = [ResultsStore(arguments.results, f"seed{seed}") for seed in range(arguments.seeds)]
    ratios_of = dict(zip(arguments.values, ratios, strict=True))
    values, rounds = arguments.values, arguments.rounds
    contestants = {
        "one training": [(values, rounds)],
        "one each, as many steps": [([size], rounds) for size in values],
        "one each, twice as many": [([size], 2 * rounds) for size in values],
    }
    shares: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for name, trials in contestants.items():
        for space, store in zip(spaces, stores, strict=True):
            rows = [recorded(configured(space, *trial, ratios_of), number(*trial), store) for trial in trials]
            points = pd.DataFrame([point for row in rows for point in store.read_points(row["trial_id"])])
            shares.setdefault(name, []).append(hypervolume(points, OBJECTIVES).share)
            seconds.setdefault(name, []).append(sum(row["train_seconds"] for row in rows))
        first = "one training"
        gains = [ours - theirs for ours, theirs in zip(shares[name], shares[first], strict=True)]
        ratios = [ours / theirs for ours, theirs in zip(seconds[name], seconds[first], strict=True)]
        print(
            f"{name:30}{spread(shares[name], '{:.4f}'):>18}{spread(gains, '{:+.4f}'):>20}"
            f"{spread(seconds[name], '{:.1f}'):>16}{spread(ratios, '{:.2f}'):>14}",
            flush=True,
        )


def configured(space: SearchSpace, values: list[int], rounds: int, ratios_of: Mapping[int, float]) -> TrialConfig:
    """The space's first setting with these codebooks, one stage each, and the learning rate of each of them."""
    config = space.trial_config(space.start_settings()[0], 0).model_dump(mode="json")
    first, *later = (ratios_of[size] for size in values)
    config["training"]["lr"] *= first
    config["method"] = {"name": "qat", "stages": values, "stage_rounds": [rounds]}
    if later:
        config["method"]["later_lr_ratio"] = [ratio / first for ratio in later]
    return TrialConfig.model_validate_json(json.dumps(config))


def number(values: list[int], rounds: int) -> int:
    """Return a different number for each trial of a seed."""
    return 100_000 * len(values) + 1_000 * rounds + values[0]


if __name__ == "__main__":
    main()
