"""Where training stands inside a round, kept every few minutes, so that a lost process costs minutes and not the round.

What is kept is all that another process needs to end like one that was never lost, to the last bit: the learner's
buffers and optimiser, its noise, torch's own generators, the losses of the steps, and how far the data are used up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import inf

import torch
from torch import Tensor

from pwfn.parameters import copied, under
from pwfn.replicas import Replicas
from pwfn.training import STEPS_BETWEEN_CHECKS, Learner

State = Mapping[str, Tensor]

PREFIX = "midway."
"""Names of all that this module adds to a checkpoint begin so; the others are the state after the last whole round."""
OWN = "own."
"""Names, in a learner's state, of what each replica has for itself; the rest is the same on all."""


class Midway:
    """Writes the state inside a round, and gives it back to the training that goes on from it.

    A round trains in one or several runs of epochs, each with its own learner. What is kept: of every epoch that is
    over its loss, of every run that is over its learner's state, and of the present epoch everything.

    Args:
        write: takes a checkpoint, the state after the last whole round included; None keeps nothing.
        seconds: between two checkpoints.
        found: the checkpoint from which this process goes on.
        replicas: the workers of the trial; the first one writes, what is each one's own is gathered.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Tensor]], None] | None = None,
        *,
        seconds: float = inf,
        found: State | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self._write = write
        self._seconds = seconds
        self._replicas = replicas or Replicas()
        found = found or {}
        self.after_round: dict[str, Tensor] = {k: v for k, v in found.items() if not k.startswith(PREFIX)}
        """State after the last whole round; empty before the first."""
        within = {k.removeprefix(PREFIX): v for k, v in found.items() if k.startswith(PREFIX)}
        self._losses = {k: float(v) for k, v in under("loss.", within).items()}
        self._ends = under("end.", within)
        self._present = under("present.", within)
        self._last = time.monotonic()

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._write is not None

    def begin_round(self, state: State) -> None:
        """Forget what was inside the round that is over now; `state` is the one after it."""
        self.after_round = dict(state)
        self._losses, self._ends, self._present = {}, {}, {}
        self._last = time.monotonic()

    def loss(self, label: str) -> float | None:
        """Mean loss of an epoch of this round that was over when the process was lost; None for any other."""
        return self._losses.get(label)

    def go_on(self, label: str, learner: Learner, device: torch.device) -> list[Tensor]:
        """Take the learner to where an epoch was interrupted; return the losses of its steps, none from the start."""
        present = under(f"{label}.", self._present)
        if not present:
            return []
        state = self._of_this_replica(present)
        learner.load_state(state)
        torch.set_rng_state(state["rng"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["rng_cuda"], device)
        self._present = {}
        return list(state["losses"].to(device).unbind())

    def after_step(self, label: str, learner: Learner, losses: list[Tensor]) -> None:
        """Keep where an epoch stands after a step, if it is time to."""
        if not self._is_due(len(losses), losses[-1].device):
            return
        further = copied({"rng": torch.get_rng_state(), "losses": torch.stack(losses)})
        if losses[-1].device.type == "cuda":
            further["rng_cuda"] = torch.cuda.get_rng_state(losses[-1].device)
        present = self._of_all_replicas(learner.state(), further)
        if self._replicas.is_first:
            assert self._write is not None
            within = {
                **{f"loss.{k}": torch.tensor(v, dtype=torch.float64) for k, v in self._losses.items()},
                **{f"end.{k}": v for k, v in self._ends.items()},
                **{f"present.{label}.{k}": v for k, v in present.items()},
            }
            self._write({**self.after_round, **{PREFIX + k: v for k, v in within.items()}})
        self._last = time.monotonic()

    def end_epoch(self, label: str, loss: float) -> None:
        """Note that an epoch is over."""
        self._losses[label] = loss

    def end_run(self, label: str, learner: Learner) -> None:
        """After the last epoch of a run: keep how it ended, or take the learner there if it had ended before."""
        if not self.is_on:
            return
        ended = under(f"{label}.", self._ends)
        if ended:
            learner.load_state(self._of_this_replica(ended))
        else:
            self._ends |= {f"{label}.{k}": v for k, v in self._of_all_replicas(learner.state(), {}).items()}

    def _of_all_replicas(self, state: State, further: State) -> dict[str, Tensor]:
        """Put together a learner's state, with what each replica has for itself, `further` included, under its rank."""
        own = {k: v for k, v in state.items() if k.startswith(OWN)}
        of_ranks = self._replicas.gather({**own, **further})
        shared = {k: v for k, v in state.items() if k not in own}
        return shared | {f"rank{rank}.{k}": v for rank, each in enumerate(of_ranks) for k, v in each.items()}

    def _of_this_replica(self, kept: State) -> dict[str, Tensor]:
        """Return, of what `_of_all_replicas` put together, what this replica needs."""
        shared = {k: v for k, v in kept.items() if not k.startswith("rank")}
        return shared | under(f"rank{self._replicas.rank}.", kept)

    def _is_due(self, num_steps: int, device: torch.device) -> bool:
        """Whether the time has come; several replicas ask the first one, as seldom as they check their losses."""
        if not self.is_on or (self._replicas.world_size > 1 and num_steps % STEPS_BETWEEN_CHECKS):
            return False
        is_time = time.monotonic() - self._last >= self._seconds
        return bool(self._replicas.agree(int(is_time), device))
