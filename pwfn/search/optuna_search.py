"""Optuna proposes, Tune places: the bridge between them, on Optuna's public ask and tell.

Ray's own OptunaSearch tells early-stopped trials as complete, leaves trials with a NaN running for ever, and cannot
start from known trials when there are several objectives; here every trial ends in the state that it deserves.
"""

from __future__ import annotations

import json
import logging
import math
import pickle
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial, FixedTrial, TrialState
from ray.tune.search import Searcher

from pwfn.search.domains import Choice
from pwfn.search.space import SearchSpace
from pwfn.search.study import Study
from pwfn.search.variation import Params
from pwfn.seeds import derive_seed

log = logging.getLogger(__name__)

State = Literal["complete", "pruned", "failed"]


class Proposal(NamedTuple):
    """Parameters of a trial by dotted field, and the trial's number in the study, from 0."""

    number: int
    params: Params


class Proposer:
    """An Optuna study over a search space: asked for parameters, told how their trials ended.

    A proposal follows from the space, the study's seed, its number and what was told before, in every process: the
    sampler is seeded anew for each number. So a study that was interrupted goes on as if it had not been.

    Args:
        space: what is searched.
        num_proposed: how many proposals an earlier process made; the next one has this number.
    """

    def __init__(self, space: SearchSpace, num_proposed: int = 0) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would report each trial on stderr
        self.space = space
        self.study = optuna.create_study(directions=list(space.objectives.values()))
        self._num_asked = num_proposed
        conditional = [name for name, varied in space.variation.vary.items() if varied.when]
        if space.search.sampler == "gp" and conditional:
            log.warning("the gp sampler draws fields with conditions at random: %s", ", ".join(conditional))
        self._open: dict[int, optuna.Trial] = {}

    def ask(self) -> Proposal | None:
        """Propose the next trial; None when the study has all it may start."""
        if self._num_asked >= self.space.search.trials:
            return None
        number = self._num_asked
        self._num_asked += 1
        settings = self.space.start_settings()
        if number < len(settings):
            return Proposal(number, self.reopen(number, settings[number]))
        self.study.sampler = make_sampler(self.space, derive_seed(self.space.search.seed, "sampler", number) % 2**32)
        self._open[number] = self.study.ask()
        return Proposal(number, self._suggest(self._open[number]))

    def reopen(self, number: int, params: Params) -> Params:
        """Take up a trial whose parameters are known: it will be told, and until then counts as running."""
        self.study.enqueue_trial({name: self._label(name, value) for name, value in params.items()})
        self._open[number] = self.study.ask()
        return self._suggest(self._open[number])

    def tell(self, number: int, state: State, metrics: Mapping[str, Any]) -> None:
        """Say how a trial ended; the metrics of a complete one hold the objectives.

        A complete trial without a finite number for each objective counts as failed. A pruned trial's metrics are those
        of an unfinished network, so they are not told. A trial that ended before, or was never proposed, is ignored.
        """
        trial = self._open.pop(number, None)
        if trial is None:
            log.warning("trial %d is not open, so its end in state %s is not told", number, state)
            return
        final_state, values = self._outcome(state, metrics)
        self.study.tell(trial, values, final_state)

    def add_finished(self, params: Mapping[str, Any], state: State, metrics: Mapping[str, Any]) -> bool:
        """Tell a trial known from elsewhere; it takes no number. Return False where it lies outside the space."""
        if not self.space.variation.contains(params):
            return False
        known = FixedTrial({name: self._label(name, value) for name, value in params.items()})
        self._suggest(known)
        final_state, values = self._outcome(state, metrics)
        self.study.add_trial(
            optuna.create_trial(
                state=final_state, values=values, params=known.params, distributions=known.distributions
            )
        )
        return True

    def _outcome(self, state: State, metrics: Mapping[str, Any]) -> tuple[TrialState, list[float] | None]:
        if state == "pruned":
            return TrialState.PRUNED, None
        values: list[Any] = [metrics.get(name) for name in self.space.objectives]
        if state == "complete" and all(isinstance(value, Real) and math.isfinite(value) for value in values):
            return TrialState.COMPLETE, [float(value) for value in values]
        return TrialState.FAIL, None

    def _suggest(self, trial: BaseTrial) -> Params:
        return self.space.variation.walk(lambda name, _: self._suggest_field(trial, name))

    def _suggest_field(self, trial: BaseTrial, name: str) -> Any:
        domain = self.space.variation.vary[name].domain
        if isinstance(domain, Choice):
            labels = [self._label(name, option) for option in domain.options]
            return domain.options[labels.index(trial.suggest_categorical(name, labels))]
        if domain.is_int:
            return trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.is_log)
        return trial.suggest_float(name, domain.low, domain.high, log=domain.is_log)

    def _label(self, name: str, value: Any) -> Any:
        """Write lists and mappings as text, since Optuna's options are scalars."""
        is_choice = isinstance(self.space.variation.vary[name].domain, Choice)
        return json.dumps(value) if is_choice and isinstance(value, list | dict) else value


def make_sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """Make the sampler that the space names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group` and NSGA-III are called so
        return SAMPLERS[space.search.sampler](space, seed)


def _tpe(space: SearchSpace, seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def _nsga2(space: SearchSpace, seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=_population_size(space), seed=seed)


def _nsga3(space: SearchSpace, seed: int) -> BaseSampler:
    return NSGAIIISampler(population_size=_population_size(space), seed=seed)


def _population_size(space: SearchSpace) -> int:
    """Leave room for five generations: the first is random, so Optuna's 50 would search nothing within 50 trials."""
    return min(50, max(10, space.search.trials // 5))


def _gp(space: SearchSpace, seed: int) -> BaseSampler:
    return GPSampler(seed=seed, warn_independent_sampling=False)


def _random(space: SearchSpace, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[SearchSpace, int], BaseSampler]] = {
    "tpe": _tpe,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "gp": _gp,
    "random": _random,
}


class OptunaSearch(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Gives Tune the proposals of a `Proposer`, as plain `{"number": 7, "trial_id": "0007", "params": {...}}`.

    Goes on where the study's folder stands: finished trials are told, those that were interrupted come first, and
    each new proposal is written there before its trial starts.
    """

    def __init__(self, study: Study) -> None:
        super().__init__()
        self._store = study.store
        proposals = sorted(study.store.read_proposals(), key=lambda proposal: int(proposal["number"]))
        rows = {row["trial_id"]: row for row in study.store.read_trials()}
        self.proposer = Proposer(study.space, num_proposed=len(proposals))
        self._interrupted = []
        for proposal in proposals:
            if (row := rows.get(proposal["trial_id"])) is not None:
                self.proposer.add_finished(proposal["params"], row["state"], row)
            else:
                self.proposer.reopen(proposal["number"], proposal["params"])
                self._interrupted.append(proposal)
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the next proposal, or FINISHED when there is none."""
        proposal = self._interrupted.pop(0) if self._interrupted else self._propose()
        if proposal is None:
            return str(Searcher.FINISHED)
        self._numbers[trial_id] = proposal["number"]
        return proposal

    def _propose(self) -> dict[str, Any] | None:
        new = self.proposer.ask()
        if new is None:
            return None
        trial_id = f"{new.number:04d}"
        proposal = {"number": new.number, "trial_id": trial_id, "params": new.params}
        self._store.write_proposal(trial_id, proposal)
        return proposal

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna the last result, which has the objectives and `state`; an error or no state is a failure."""
        result = result or {}
        state: State = "failed" if error else result.get("state", "failed")
        self.proposer.tell(self._numbers.pop(trial_id, -1), state, result)

    def save(self, checkpoint_path: str) -> None:
        """Write the whole search to a file, for Tune's snapshots."""
        partial = Path(f"{checkpoint_path}.partial")
        partial.write_bytes(pickle.dumps((self.proposer, self._interrupted, self._numbers)))
        partial.replace(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Take the place of the search that was saved to a file."""
        self.proposer, self._interrupted, self._numbers = pickle.loads(Path(checkpoint_path).read_bytes())
