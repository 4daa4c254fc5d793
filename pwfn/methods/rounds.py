"""The loop of every method, and what it yields: train, fix, measure, record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from pwfn.codebook import Codebook, CodebookMetrics, measure_codebook
from pwfn.parameters import split_parameters
from pwfn.task import Task
from pwfn.training import Accuracy, Stopwatch

State = Mapping[str, Tensor]
"""What a method needs to go on after a round, in another process."""


@dataclass(frozen=True)
class Fixing:
    """What one fixing did."""

    num_fixed: int
    """Weights that are fixed now, those of earlier rounds included."""
    codebook: Codebook
    """Their values."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What else the method records of this round, by names of its own; they are stored beside the common columns."""
    untreated_layers: tuple[str, ...] = ()
    """Layers that the method could not treat as it should and rounded to the nearest value instead."""

    @classmethod
    def of_all(cls, network: nn.Module, *, untreated_layers: tuple[str, ...] = ()) -> Fixing:
        """Describe a network whose whole fixed set is fixed."""
        weights = torch.cat([parameter.flatten() for parameter in split_parameters(network).fixable.values()])
        return cls(weights.numel(), Codebook.of(weights), untreated_layers=untreated_layers)


@dataclass(frozen=True)
class RoundRecord:
    """One round: its measured numbers, which become a row, and what a later process needs to go on from here."""

    round: int
    """Counts from 0."""
    num_rounds: int
    stage: int
    """Which of a trial's networks this round works on: counts from 0, with one for most methods."""
    is_whole: bool
    """Whether the network is whole now, every weight fixed and BatchNorm recalibrated: a result, if not the last."""
    fraction: float
    """Cumulative share of the weights that is fixed after this round."""
    fixing: Fixing
    metrics: CodebookMetrics
    """Of the fixed weights."""
    coverage: float
    """Share of all parameters that the method fixes in the end."""
    before: Accuracy
    """On the validation images, before this fixing."""
    after: Accuracy
    """On the validation images, after it."""
    test_before: Accuracy | None
    """On the test images, before a fixing that leaves a whole network; None in other rounds."""
    recalibrated_bn: bool
    ensemble_test_top1: float | None
    """Of the mean prediction over posterior draws; only of a whole network, where asked for."""
    train_loss: float | None
    """Mean over the round's steps before the fixing, penalty included; None where nothing was trained."""
    train_seconds: float
    data_seconds: float
    """Those of `train_seconds` in which training waited for batches."""
    fix_seconds: float
    eval_seconds: float
    state: Callable[[], State] = field(repr=False)
    """Copies the method's state; to be called before the next round begins, if at all."""

    @property
    def is_last(self) -> bool:
        """Whether the network is final."""
        return self.round == self.num_rounds - 1

    @property
    def summary(self) -> str:
        """One line for people."""
        return (
            f"round {self.round + 1}/{self.num_rounds} fixed {100 * self.fraction:.4g}% "
            f"values {self.metrics.unique_values} of {self.coverage:.1%} of the parameters "
            f"entropy {self.metrics.entropy_bits:.2f} top1 {self.after.top1:.1%}"
        )


class Method(ABC):
    """A way to give the weights of `task.network` few distinct values, a growing fraction in each round.

    Built for one trial and used for one run. Every random draw follows from the trial's seed and the round, so that a
    run that was interrupted ends like one that was not.
    """

    def __init__(self, task: Task, fractions: Sequence[float] = (1.0,)) -> None:
        self.task = task
        self.fractions = fractions
        """Cumulative share of the weights that is fixed after each round; the last is 1."""

    @property
    def num_stages(self) -> int:
        """Whole networks that a run leaves, one for each stage."""
        return self.stage(len(self.fractions) - 1) + 1

    def stage(self, index: int) -> int:
        """Which of its networks round `index` works on; counts from 0."""
        return 0

    def is_whole(self, index: int) -> bool:
        """Whether round `index` leaves a whole network, to be finished and measured as a result."""
        return index == len(self.fractions) - 1

    @abstractmethod
    def fix(self, index: int) -> Fixing:
        """Fix `fractions[index]` of all weights, in the network too."""

    def train(self, index: int) -> float | None:
        """Train before the fixing of round `index`; return the mean loss, None where nothing was trained.

        Leaves the network as it is to be measured.
        """
        return None

    def settle(self, fixing: Fixing) -> Fixing:
        """Train what is not fixed once the network is whole; return what its fixing is now."""
        return fixing

    def state(self) -> State:
        """Copy to the CPU what `load_state` needs to go on after the last fixing."""
        return {}

    def load_state(self, state: State) -> None:  # noqa: B027  (a method of one round has nothing to go on from)
        """Go on from what `state` returned."""

    def sigmas(self) -> Mapping[str, Tensor] | None:
        """Sigma of each parameter by its name, where it is to be kept beside the final weights."""
        return None

    def ensemble_test_top1(self) -> float | None:
        """Test accuracy of the mean prediction over posterior draws; None for a method without a posterior."""
        return None


def run_rounds(method: Method, state: State | None = None) -> Iterator[RoundRecord]:
    """Run the rounds that are left after `state`, all of them for None, and yield a record of each.

    After the last record the network holds its final weights, BatchNorm recalibrated where the configuration says so.
    """
    task, num_rounds = method.task, len(method.fractions)
    first_round = 0
    if state is not None:
        method.load_state(state)
        first_round = int(state["round"]) + 1
    for index in range(first_round, num_rounds):
        is_whole = method.is_whole(index)
        watch = Stopwatch(task.device)
        train_loss = method.train(index)
        train_seconds = watch.lap()
        before = task.measure("validation")
        test_before = task.measure("test") if is_whole else None
        eval_seconds = watch.lap()
        fixing = method.fix(index)
        fix_seconds = watch.lap()
        if is_whole:
            fixing = method.settle(fixing)
            train_seconds += watch.lap()
        recalibrated = is_whole and task.recalibrate()
        fix_seconds += watch.lap()
        after = task.measure("validation")
        yield RoundRecord(
            round=index,
            num_rounds=num_rounds,
            stage=method.stage(index),
            is_whole=is_whole,
            fraction=method.fractions[index],
            fixing=fixing,
            metrics=measure_codebook(fixing.codebook),
            coverage=task.parameter_sets.coverage,
            before=before,
            after=after,
            test_before=test_before,
            recalibrated_bn=recalibrated,
            ensemble_test_top1=method.ensemble_test_top1() if is_whole else None,
            train_loss=train_loss,
            train_seconds=train_seconds,
            data_seconds=task.waiting.lap(),
            fix_seconds=fix_seconds,
            eval_seconds=eval_seconds + watch.lap(),
            state=partial(_state_after, method, index),
        )


def _state_after(method: Method, index: int) -> State:
    return {"round": torch.tensor(index), **method.state()}
