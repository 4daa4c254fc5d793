"""What every method yields after each round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from pwfn.metrics import Codebook, CodebookMetrics
from pwfn.task import Task
from pwfn.training import Accuracy

State = Mapping[str, Tensor]
"""What a method needs to go on after a round in another process."""


@dataclass(frozen=True)
class RoundRecord:
    """One round: the measured numbers, which become a row, and what a later process needs to go on from here.

    `before` and `after` are accuracies on the validation images around this round's fixing. Seconds are wall time.
    Sigma quantiles and radii are None for methods that have none.
    """

    round: int
    """Counts from 0."""
    num_rounds: int
    fraction: float
    """Cumulative share of the weights fixed after this round."""
    num_fixed: int
    before: Accuracy
    after: Accuracy
    metrics: CodebookMetrics
    """Over the fixed weights."""
    codebook: Codebook
    train_loss: float | None
    """Mean over the round's steps; None where nothing was trained."""
    train_seconds: float
    fix_seconds: float
    eval_seconds: float
    state: Callable[[], State] = field(repr=False)
    """Copies the state of the method; called only when it is to be saved, and before the next round begins."""
    radius_start: float | None = None
    radius_end: float | None = None
    sigma_quantiles: Mapping[str, float] = field(default_factory=dict)
    """`sigma_q05` and so on."""
    test_before: Accuracy | None = None
    """Test accuracy before the last fixing; only in the last round."""
    recalibrated_bn: bool = False
    ensemble_test_top1: float | None = None
    """Of the mean prediction over posterior draws; only in the last round, where asked for."""

    @property
    def is_last(self) -> bool:
        """Whether every weight is fixed now and the network is final."""
        return self.round == self.num_rounds - 1

    @property
    def summary(self) -> str:
        """One line for people."""
        return (
            f"round {self.round + 1}/{self.num_rounds} fixed {100 * self.fraction:.4g}% "
            f"values {self.metrics.unique_values} entropy {self.metrics.entropy_bits:.2f} top1 {self.after.top1:.1%}"
        )


class Method(Protocol):
    """A way to give a network few distinct weights.

    It yields one record per round and leaves the final weights in `task.network` after the last. With the `state`
    of an earlier record it goes on after that round, to the same result as without the interruption.
    """

    def __call__(self, task: Task, state: State | None = None) -> Iterator[RoundRecord]:
        """Run the rounds that are left."""
