"""Who proposes: a search space as a study of Optuna's, on its public ask and tell."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import optuna
from optuna.samplers import (
    BaseGASampler,
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState

from pwfn.search.suggestions import labels, suggest
from pwfn.seeds import derive_seed
from pwfn.space.constraints import is_finite
from pwfn.space.space import SearchSpace
from pwfn.space.variation import Params

log = logging.getLogger(__name__)

State = Literal["complete", "pruned", "failed"]

POPULATION = 16
"""Trials of a generation of NSGA-II and NSGA-III, however many are planned, so that going on with more is the same
search. The first generation is random: with Optuna's 50 the usual 64 trials would hardly search."""


class Proposal(NamedTuple):
    """Parameters of a trial by dotted field, and the trial's number in the study, from 0."""

    number: int
    params: Params
    attributes: dict[str, dict[str, Any]]
    """What the sampler noted about the `trial` and the `study`, as JSON data: a later process needs it as well."""


class Proposer:
    """An Optuna study over a search space: asked for parameters, told how their trials ended.

    A proposal follows from the space, the study's seed, its number and what was told before, in every process: the
    sampler is seeded anew for each number. So a study that was interrupted goes on as if it had not been.

    With `search.batch` a proposal knows exactly the trials of all earlier batches, so that it depends neither on the
    order in which trials end nor on how many run at once.
    """

    def __init__(self, space: SearchSpace) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would report each trial on stderr
        self.space = space
        self._storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(storage=self._storage, directions=list(space.objectives.values()))
        self._study_id = self._storage.get_study_id_from_name(self.study.study_name)
        self._num_asked = 0
        self._open: dict[int, optuna.Trial] = {}
        self._ended: dict[int, tuple[State, Mapping[str, Any]]] = {}
        conditional = [name for name, varied in space.variation.vary.items() if varied.when]
        if space.search.sampler == "gp" and conditional:
            log.warning("the gp sampler draws fields with conditions at random: %s", ", ".join(conditional))

    @property
    def must_wait(self) -> bool:
        """Whether the next proposal has to know trials that have not ended."""
        return self.space.search.batch is not None and any(
            self._is_due(number) for number in self._open.keys() - self._ended.keys()
        )

    def ask(self) -> Proposal | None:
        """Propose the next trial; None when the study has all it may start. Not to be called while it must wait."""
        assert not self.must_wait
        for number in sorted(filter(self._is_due, self._ended)):
            self._tell_optuna(self._open.pop(number), *self._ended.pop(number))
        number, settings = self._num_asked, self.space.start_settings()
        if number >= self.space.search.trials:
            return None
        self.study.sampler = make_sampler(self.space, derive_seed(self.space.search.seed, "sampler", number) % 2**32)
        known = dict(self._storage.get_study_system_attrs(self._study_id))
        trial, params = self._begin(number, settings[number] if number < len(settings) else None)
        self._join_generation(trial)
        return Proposal(number, params, self._attributes(trial, known))

    def reopen(self, proposal: Proposal) -> bool:
        """Take up what an earlier process proposed: it counts as running until it is told.

        Return False where it lies outside the space, which then differs from that process's; it is left out.
        """
        self._num_asked = max(self._num_asked, proposal.number + 1)
        if not self.space.variation.contains(proposal.params):
            return False
        trial, _ = self._begin(proposal.number, proposal.params)
        for name, value in proposal.attributes.get("trial", {}).items():
            self._storage.set_trial_system_attr(self._id(trial), name, value)
        for name, value in proposal.attributes.get("study", {}).items():
            self._storage.set_study_system_attr(self._study_id, name, value)
        return True

    def tell(self, number: int, state: State, metrics: Mapping[str, Any]) -> None:
        """Say how a trial ended; the metrics of a complete one hold what `SearchSpace.told_metrics` names.

        A complete trial without a finite number for each of these counts as failed. A pruned trial's metrics are those
        of an unfinished network, so they are not told. A trial that ended before, or was never proposed, is ignored.
        """
        if number not in self._open or number in self._ended:
            log.warning("trial %d is not open, so its end in state %s is not told", number, state)
            return
        self._ended[number] = (state, metrics)

    def add_complete(self, trials: Iterable[tuple[Params, Mapping[str, Any]]]) -> None:
        """Tell complete trials of other studies, parameters and metrics; they take no numbers.

        Those outside the space are left out. To a genetic algorithm they are one generation, the first: all are begun
        before any has ended.
        """
        self.study.sampler = make_sampler(self.space, seed=0)  # it draws nothing
        begun = []
        for params, metrics in trials:
            if self.space.variation.contains(params):
                trial, _ = self._begin(None, params)
                self._join_generation(trial)
                begun.append((trial, metrics))
        for trial, metrics in begun:
            self._tell_optuna(trial, "complete", metrics)

    def _is_due(self, number: int) -> bool:
        """Whether the next proposal has to know a trial, where that has ended."""
        batch = self.space.search.batch
        return batch is None or number // batch < self._num_asked // batch

    def _begin(self, number: int | None, params: Params | None) -> tuple[optuna.Trial, Params]:
        """Start a trial in Optuna, with the parameters given or with the sampler's."""
        if params is not None:
            self.study.enqueue_trial(labels(self.space, params))
        trial = self.study.ask()
        if number is not None:
            self._open[number] = trial
            self._num_asked = max(self._num_asked, number + 1)
        return trial, suggest(self.space, trial)

    def _join_generation(self, trial: optuna.Trial) -> None:
        """Make a trial whose parameters no genetic algorithm drew a parent all the same; Optuna leaves it out."""
        if isinstance(self.study.sampler, BaseGASampler):
            self.study.sampler.get_trial_generation(self.study, self._storage.get_trial(self._id(trial)))

    def _attributes(self, trial: optuna.Trial, known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What the sampler noted on a trial, and on the study besides what was known."""
        of_trial = self._storage.get_trial_system_attrs(self._id(trial))
        of_study = self._storage.get_study_system_attrs(self._study_id)
        return {
            "trial": {name: value for name, value in of_trial.items() if name != "fixed_params"},
            "study": {name: value for name, value in of_study.items() if name not in known},
        }

    def _id(self, trial: optuna.Trial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)

    def _tell_optuna(self, trial: optuna.Trial, state: State, metrics: Mapping[str, Any]) -> None:
        if state == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        elif state == "complete" and all(is_finite(metrics.get(name)) for name in self.space.told_metrics):
            for constraint in self.space.constraints:
                trial.set_constraint(constraint.name, constraint.violation(metrics))
            self.study.tell(trial, [float(metrics[name]) for name in self.space.objectives])
        else:
            self.study.tell(trial, state=TrialState.FAIL)


def make_sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """Make the sampler that the space names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group` and NSGA-III are called so
        return SAMPLERS[space.search.sampler](space, seed)


def _tpe(space: SearchSpace, seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def _nsga2(space: SearchSpace, seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=POPULATION, seed=seed)


def _nsga3(space: SearchSpace, seed: int) -> BaseSampler:
    return NSGAIIISampler(population_size=POPULATION, seed=seed)


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
