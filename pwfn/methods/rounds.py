"""The loop that every method runs through, train, fix, measure, and the record that it yields after each round."""

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
"""Tensors from which another process can go on after a round, by name."""


@dataclass(frozen=True)
class Fixing:
    """The result of fixing weights in one round."""

    num_fixed: int
    """Number of weights that are fixed now, those of earlier rounds included."""
    codebook: Codebook
    """Values and counts of these weights."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Further numbers of this round, by names that the method chooses; they are stored beside the common columns."""
    untreated_layers: tuple[str, ...] = ()
    """Names of layers that the method could not treat in its own way and rounded to the nearest value instead."""

    @classmethod
    def of_all(cls, network: nn.Module, *, untreated_layers: tuple[str, ...] = ()) -> Fixing:
        """Describe a network in which the whole fixed set has its final values."""
        weights = torch.cat([parameter.flatten() for parameter in split_parameters(network).fixable.values()])
        return cls(weights.numel(), Codebook.of(weights), untreated_layers=untreated_layers)


@dataclass(frozen=True)
class RoundRecord:
    """One round: the numbers measured, which become a row, and a way to save the method's state after it."""

    round: int
    """Number of this round; the first is 0."""
    num_rounds: int
    stage: int
    """Number of the stage that this round belongs to; the first is 0. Each stage ends in a whole network. Most methods
    have one stage."""
    is_whole: bool
    """Whether the network is whole now: every weight has its value and BatchNorm is recalibrated. It is a result, even
    if further stages follow."""
    fraction: float
    """Cumulative share of the weights that is fixed after this round."""
    fixing: Fixing
    metrics: CodebookMetrics
    """Metrics of the codebook of the fixed weights."""
    coverage: float
    """Share of all parameters that the method fixes in the end."""
    before: Accuracy
    """Accuracy on the validation images before this fixing."""
    after: Accuracy
    """Accuracy on the validation images after this fixing."""
    test_before: Accuracy | None
    """Accuracy on the test images before a fixing that leaves a whole network; None in other rounds, and where nothing
    was trained, so that it would be that of the float network."""
    recalibrated_bn: bool
    """Whether BatchNorm's statistics were estimated again in this round."""
    ensemble_test_top1: float | None
    """Top-1 test accuracy of the mean prediction over posterior draws; None unless the network is whole and the
    configuration asks for it."""
    train_loss: float | None
    """Mean loss over the round's training steps before the fixing, penalty included; None if nothing was trained."""
    train_seconds: float
    """Elapsed seconds of training, settling included."""
    data_seconds: float
    """The part of `train_seconds` in which training waited for batches."""
    fix_seconds: float
    """Elapsed seconds of the fixing and of BatchNorm's recalibration."""
    eval_seconds: float
    """Elapsed seconds of measuring accuracies."""
    state: Callable[[], State] = field(repr=False)
    """Copies the method's state after this round. Call it before the next round begins."""

    @property
    def is_last(self) -> bool:
        """Whether this is the last round."""
        return self.round == self.num_rounds - 1

    @property
    def summary(self) -> str:
        """One line for the log."""
        return (
            f"round {self.round + 1}/{self.num_rounds} fixed {100 * self.fraction:.4g}% "
            f"values {self.metrics.unique_values} of {self.coverage:.1%} of the parameters "
            f"entropy {self.metrics.entropy_bits:.2f} top1 {self.after.top1:.1%}"
        )


class Method(ABC):
    """A method gives the weights of `task.network` few distinct values, a larger share of them in each round.

    An object is built for one trial and runs once. Every random draw follows from the trial's seed and the round, so
    that an interrupted run, continued, ends with the same network as an uninterrupted one.
    """

    def __init__(self, task: Task, fractions: Sequence[float] = (1.0,)) -> None:
        self.task = task
        self.fractions = fractions
        """Cumulative share of the weights that is fixed after each round; the last is 1."""

    @property
    def num_stages(self) -> int:
        """Number of stages, and so of whole networks that a run makes."""
        return self.stage(len(self.fractions) - 1) + 1

    def stage(self, index: int) -> int:
        """Return the number of the stage that round `index` belongs to; both count from 0."""
        return 0

    def is_whole(self, index: int) -> bool:
        """Whether round `index` ends in a whole network, which is then settled and measured as a result."""
        return index == len(self.fractions) - 1

    @abstractmethod
    def fix(self, index: int) -> Fixing:
        """Fix `fractions[index]` of all weights and write their values to the network."""

    def train(self, index: int) -> float | None:
        """Train before the fixing of round `index`; return the mean loss, or None if nothing was trained.

        Afterwards the network must have the weights that are measured before the fixing.
        """
        return None

    def settle(self, fixing: Fixing) -> Fixing:
        """Train what may still change when the network is whole; return the fixing with its values as they are then."""
        return fixing

    def state(self) -> State:
        """Return copies, on the CPU, of the tensors that `load_state` needs to go on after the last fixing."""
        return {}

    def load_state(self, state: State) -> None:  # noqa: B027  (a method of one round has nothing to go on from)
        """Continue from what `state` returned."""

    def sigmas(self) -> Mapping[str, Tensor] | None:
        """Sigma of each parameter by its name, to be stored beside the final weights; None to store none."""
        return None

    def ensemble_test_top1(self) -> float | None:
        """Top-1 test accuracy of the mean prediction over posterior draws; None if the method does not measure it."""
        return None


def run_rounds(method: Method, state: State | None = None) -> Iterator[RoundRecord]:
    """Run the rounds that follow `state`, or all rounds if it is None, and yield a record of each.

    After the last record the network has its final weights, and BatchNorm is recalibrated if the configuration says so.
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
        test_before = task.measure("test") if is_whole and train_loss is not None else None
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
