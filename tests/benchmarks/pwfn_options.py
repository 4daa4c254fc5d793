"""What PWFN's options beyond the paper give on the digits: values, entropy and test accuracy over several seeds.

    python tests/benchmarks/pwfn_options.py                          the paper's setting, five seeds (minutes)
    python tests/benchmarks/pwfn_options.py --setting 1 --seeds 3    the second setting of search_spaces/digits.yaml

A seed makes its own split, float network and trial; an option changes one or two fields of the setting, on the same
float networks. Cells are mean and standard deviation over the seeds; `gain` is the mean difference in test accuracy
from the setting itself, with its standard error. One test image of 359 is 0.28 points.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import torch
from printed import conditions, spread, standard_error

from pwfn.config import TrialConfig
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.space.space import SearchSpace
from pwfn.trial.decision import Decision
from pwfn.trial.rows import Row, Trial
from pwfn.trial.run import run_trial

OPTIONS: dict[str, dict[str, Any]] = {
    "the setting itself": {},
    "sigma_init: fisher": {"method.sigma_init": "fisher"},
    "growth: radius_first": {"method.growth": "radius_first"},
    "growth: nearest": {"method.growth": "nearest"},
    "codebook: free": {"method.codebook": "free"},
    "recluster: free": {"method.recluster": "free"},
    "recluster, codebook: free": {"method.recluster": "free", "method.codebook": "free"},
    "radius_first, codebook: free": {"method.growth": "radius_first", "method.codebook": "free"},
    "nearest, codebook: free": {"method.growth": "nearest", "method.codebook": "free"},
    "max_order: 1": {"method.max_order": 1},
    "max_order: 1, codebook: free": {"method.max_order": 1, "method.codebook": "free"},
    "lr_schedule: cosine": {"training.lr_schedule": "cosine"},
    "codebook: kmeans, 16 values": {"method.codebook": "kmeans", "method.num_values": 16},
    "noise_epochs: 3": {"method.noise_epochs": 3},
    "noise_epochs: 3, sigmas first": {"method.noise_epochs": 3, "method.fixed_sigma_first": True},
    "equalize: layer": {"model.equalize": "layer"},
    "distillation: 1": {"training.distillation": 1.0},
    "settle_epochs: 3": {"training.settle_epochs": 3},
    "equalize, max_order: 1": {"model.equalize": "layer", "method.max_order": 1},
    "precision: bfloat16": {"training.precision": "bfloat16"},
    "sigma_scale x 4": {"method.sigma_scale": 4},  # a factor on the setting's own
}


def main() -> None:
    """Print the table, a row per option."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--setting", type=int, default=0, help="which of the space's start_with")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="FIELD=VALUE", help="changes of digits.yaml for all rows"
    )
    parser.add_argument("--options", nargs="*", default=list(OPTIONS), choices=OPTIONS, metavar="OPTION")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(f"{conditions()}; {arguments.seeds} seeds")
    with tempfile.TemporaryDirectory() as folder:
        spaces = [SearchSpace.load("digits", arguments.set, seed=seed) for seed in range(arguments.seeds)]
        varied = [f"{name}={value}" for name, value in setting(spaces[0], arguments.setting).items()]
        print(", ".join([*arguments.set, *varied]))
        print(f"{'':30}{'values':>16}{'entropy':>16}{'test top-1':>17}{'gain':>16}{'seconds':>9}")
        base: list[Row] = []
        for number, name in enumerate(dict.fromkeys(["the setting itself", *arguments.options])):
            configs = [configured(space, arguments.setting, OPTIONS[name]) for space in spaces]
            rows = [run(config, number, ResultsStore(folder, f"seed{seed}")) for seed, config in enumerate(configs)]
            base = base or rows
            print(f"{name:30}{cells(rows, base)}", flush=True)


def setting(space: SearchSpace, index: int) -> dict[str, Any]:
    """The values that all options start from."""
    return space.start_settings()[index]


def configured(space: SearchSpace, index: int, changes: Mapping[str, Any]) -> TrialConfig:
    """The configuration of a setting with an option's changes."""
    config = space.trial_config(setting(space, index), 0).model_dump(mode="json")
    for field, value in changes.items():
        section, _, leaf = field.partition(".")
        config[section][leaf] = value * config[section][leaf] if leaf == "sigma_scale" else value
    return TrialConfig.model_validate_json(json.dumps(config))


def run(config: TrialConfig, number: int, store: ResultsStore) -> Row:
    """Run one trial in this process; trials of one store share its float network."""
    store.create()
    row = run_trial(
        Trial(str(number), number, store.study, config),
        store,
        device=torch.device("cpu"),
        replicas=Replicas(),
        on_round=lambda row, summary: Decision.CONTINUE,
    )
    assert row["state"] == "complete", row["failure_message"]
    return row


def cells(rows: list[Row], base: list[Row]) -> str:
    """One line of numbers."""
    points = [100 * row["test_top1"] for row in rows]
    gains = [point - 100 * row["test_top1"] for point, row in zip(points, base, strict=True)]
    return (
        f"{spread([row['unique_values'] for row in rows], '{:.1f}'):>16}"
        f"{spread([row['entropy_bits'] for row in rows], '{:.2f}'):>16}"
        f"{spread(points, '{:.2f}'):>17}"
        f"{f'{mean(gains):+.2f} +- {standard_error(gains):.2f}':>16}"
        f"{mean(row['wall_seconds'] for row in rows):9.1f}"
    )


if __name__ == "__main__":
    main()
