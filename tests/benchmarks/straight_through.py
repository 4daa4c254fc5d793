"""Measures what sigma, noise and gradual fixing add to plain straight-through training with equally many steps.

    python tests/benchmarks/straight_through.py --results results/straight_through                    the digits
    PWFN_DATA=/path/to/data python tests/benchmarks/straight_through.py --space qat_cifar10 \
        --set training.precision=float32 --results results/straight_through_cifar10                   ResNet-20

Every row trains nine rounds of as many steps: `qat` in one stage; PWFN in seven rounds, each of which fixes more, and
two of settling; "at once" in one, whose fixing comes first, and nine of settling. All start from the same float
network, with as many values. A row differs from the one above it in what its name says, so that the columns of a
number of values show what each part is worth. A seed makes its own split, float network (where that is trained) and
trial. Cells: mean and standard deviation over the seeds; `gain` is the mean difference in test accuracy from `qat`,
with its standard error. Rows that are in `--results` are read from there: the same command goes on after a stop.
Cost: on the digits about 25 seconds for each row and seed on a busy core; on CIFAR-10 nine times
`training.steps_per_epoch` steps of 128 images.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import torch
from printed import conditions
from pwfn_options import cells, run

from pwfn.config import TrialConfig
from pwfn.results.store import ResultsStore
from pwfn.space.space import SearchSpace
from pwfn.trial.rows import Row

ROUNDS = 9
SETTLING = 2
FRACTIONS = [0.5, 0.8, 0.92, 0.97, 0.99, 0.997, 1.0]
ANYWHERE = 1e6
"""A radius, in sigmas, that is too large to limit any weight."""

PWFN: dict[str, Any] = {
    "name": "pwfn", "fractions": FRACTIONS, "codebook": "kmeans", "sigma_init": "fisher",
    "sigma_join": "allow_retraining", "zero_rule": False,
}  # fmt: skip
LIVE = {**PWFN, "fixed_weights": "live"}
UNBOUND = {**LIVE, "noise": False, "start_sigma": ANYWHERE, "end_sigma": ANYWHERE}

VARIANTS: dict[str, dict[str, Any]] = {
    "qat": {"name": "qat", "stage_rounds": [ROUNDS]},
    "qat, gradual start": {"name": "qat", "stage_rounds": [ROUNDS], "gradual_start": 0.5},
    "pwfn at once, live, sigma no bound": {**UNBOUND, "fractions": [1.0]},
    "pwfn gradual, live, sigma no bound": UNBOUND,
    "pwfn gradual, live, sigma bounds": {**LIVE, "noise": False},
    "the same with noise": LIVE,
    "pwfn gradual, hold": {**PWFN, "noise": False},
    "the same, hold, with noise": PWFN,
}


def main() -> None:
    """Print a table for each number of values."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", default="qat_digits", help="network, data and training are its own")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="changes of it for all rows")
    parser.add_argument("--values", nargs="*", type=int, default=[16, 8, 4, 3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS, metavar="VARIANT")
    parser.add_argument("--results", default="results/straight_through")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(f"{conditions()}; {arguments.seeds} seeds; {arguments.space}", *arguments.set)
    spaces = [SearchSpace.load(arguments.space, arguments.set, seed=seed) for seed in range(arguments.seeds)]
    stores = [ResultsStore(arguments.results, f"seed{seed}") for seed in range(arguments.seeds)]
    for num_values in arguments.values:
        print(f"\n{f'{num_values} values':38}{'values':>16}{'entropy':>16}{'test top-1':>17}{'gain':>16}{'seconds':>9}")
        base: list[Row] = []
        for name in dict.fromkeys(["qat", *arguments.variants]):
            number = 1000 * num_values + list(VARIANTS).index(name)
            configs = [configured(space, VARIANTS[name], num_values) for space in spaces]
            rows = [recorded(config, number, store) for config, store in zip(configs, stores, strict=True)]
            base = base or rows
            print(f"{name:38}{cells(rows, base)}", flush=True)


def configured(space: SearchSpace, method: Mapping[str, Any], num_values: int) -> TrialConfig:
    """Return the space's first setting with the method of a row; all rows train equally many steps."""
    config = space.trial_config(space.start_settings()[0], 0).model_dump(mode="json")
    config["method"] = {**method, "num_values": num_values}
    epochs = config["training"]["rest_epochs"]
    config["training"] |= {"start_fraction": 1.0, "start_epochs": epochs}
    if method["name"] == "pwfn":
        at_once = len(method.get("fractions", FRACTIONS)) == 1
        config["training"] |= {"settle_epochs": (ROUNDS if at_once else SETTLING) * epochs}
        config["training"] |= {"start_epochs": 0} if at_once else {}
    return TrialConfig.model_validate_json(json.dumps(config))


def recorded(config: TrialConfig, number: int, store: ResultsStore) -> Row:
    """Return the row of a trial: read it if the trial was run before with the same configuration, else run it."""
    store.create()
    row = store.read_trial(str(number))
    if row is not None and TrialConfig.model_validate_json(row["config_json"]) == config:
        return row
    return run(config, number, store)


if __name__ == "__main__":
    main()
