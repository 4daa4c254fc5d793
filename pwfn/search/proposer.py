"""Proposes trials: a search space as an Optuna study, used through its public ask-and-tell interface."""

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
from pwfn.space.declaration import HYPERVOLUME
from pwfn.space.space import SearchSpace
from pwfn.space.variation import Params

log = logging.getLogger(__name__)

State = Literal["complete", "pruned", "failed"]

POPULATION = 16
"""Trials in one generation of NSGA-II and NSGA-III. It does not depend on how many trials are planned, so that a study
that is continued with more trials is the same search. The first generation is random: with Optuna's default of 50, most
of the usual 64 trials would be random."""


class Proposal(NamedTuple):
    """One proposed trial: its number in the study, from 0, and its parameters by dotted field."""

    number: int
    params: Params
    attributes: dict[str, dict[str, Any]]
    """What the sampler noted on the `trial` and on the `study`, as JSON data; a process that continues needs it."""


class Proposer:
    """An Optuna study over a search space: it is asked for parameters and told how their trials ended.

    A proposal depends only on the space, the seed of the study, its number, and what was told before it, in every
    process alike, because the sampler gets a new seed for each number. So an interrupted study goes on as if it had not
    been interrupted.

    With `search.batch` a proposal knows the trials of all earlier batches and no others, so it depends neither on the
    order in which trials end nor on how many run at once.
    """

    def __init__(self, space: SearchSpace) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would report each trial on stderr
        self.space = space
        self._storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(storage=self._storage, directions=list(space.learned.values()))
        self._study_id = self._storage.get_study_id_from_name(self.study.study_name)
        self._num_asked = 0
        self._open: dict[int, optuna.Trial] = {}
        self._ended: dict[int, tuple[State, Mapping[str, Any]]] = {}
        conditional = [name for name, varied in space.variation.vary.items() if varied.when]
        if space.search.sampler == "gp" and conditional:
            log.warning("the gp sampler draws fields with conditions at random: %s", ", ".join(conditional))

    @property
    def must_wait(self) -> bool:
        """Whether the next proposal must know the results of trials that have not ended yet."""
        return self.space.search.batch is not None and any(
            self._is_due(number) for number in self._open.keys() - self._ended.keys()
        )

    def ask(self) -> Proposal | None:
        """Propose the next trial; None when all trials are proposed. Must not be called while `must_wait` is true."""
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
        """Add a trial that an earlier process proposed; it counts as running until its end is told.

        Returns False, and adds nothing, where its parameters lie outside the space: the space was another one then.
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

    def withdraw(self, number: int) -> None:
        """Take back a proposal of `ask` that shall not run, as another process has proposed a trial of that number."""
        self.study.tell(self._open.pop(number), state=TrialState.FAIL)

    def tell(self, number: int, state: State, metrics: Mapping[str, Any]) -> None:
        """Say how a trial ended; the metrics of a complete one hold what `SearchSpace.learned_metrics` names.

        A complete trial that lacks a finite number for one of these counts as failed. The metrics of a pruned trial
        belong to an unfinished network, so Optuna is not told them. A trial that has already ended, or was never
        proposed, is ignored.
        """
        if number not in self._open or number in self._ended:
            log.warning("trial %d is not open, so its end in state %s is not told", number, state)
            return
        self._ended[number] = (state, metrics)

    def add_complete(self, trials: Iterable[tuple[Params, Mapping[str, Any]]]) -> None:
        """Tell complete trials of other studies, as parameters and metrics; they use up no trial numbers.

        Trials outside the space are left out. A genetic algorithm takes them as its first generation, because all of
        them are begun before any has ended.
        """
        self.study.sampler = make_sampler(self.space, seed=0)  # nothing is drawn here, so any seed will do
        begun = []
        for params, metrics in trials:
            if self.space.variation.contains(params):
                trial, _ = self._begin(None, params)
                self._join_generation(trial)
                begun.append((trial, metrics))
        for trial, metrics in begun:
            self._tell_optuna(trial, "complete", metrics)

    def _is_due(self, number: int) -> bool:
        """Whether the next proposal must know the result of a trial, once that trial has ended."""
        batch = self.space.search.batch
        return batch is None or number // batch < self._num_asked // batch

    def _begin(self, number: int | None, params: Params | None) -> tuple[optuna.Trial, Params]:
        """Start a trial in Optuna, with the given parameters, or with those that the sampler chooses."""
        if params is not None:
            self.study.enqueue_trial(labels(self.space, params))
        trial = self.study.ask()
        if number is not None:
            self._open[number] = trial
            self._num_asked = max(self._num_asked, number + 1)
        return trial, suggest(self.space, trial)

    def _join_generation(self, trial: optuna.Trial) -> None:
        """Give a trial a generation although its parameters were given; else Optuna never takes it as a parent."""
        if isinstance(self.study.sampler, BaseGASampler):
            self.study.sampler.get_trial_generation(self.study, self._storage.get_trial(self._id(trial)))

    def _attributes(self, trial: optuna.Trial, known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Collect what the sampler noted on a trial, and what it added to the study's notes in `known`."""
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
        elif state == "complete" and all(is_finite(metrics.get(name)) for name in self.space.learned_metrics):
            for constraint in () if HYPERVOLUME in self.space.learned else self.space.constraints:
                trial.set_constraint(constraint.name, constraint.violation(metrics))
            self.study.tell(trial, [float(metrics[name]) for name in self.space.learned])
        else:
            self.study.tell(trial, state=TrialState.FAIL)


def make_sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """Make the sampler that the space names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`, NSGA-III
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
