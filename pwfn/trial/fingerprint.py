"""Fingerprints of what a trial reads, its data and its checkpoint, taken in a place where a trial would run."""

from __future__ import annotations

from pwfn.config import TrialConfig
from pwfn.data import open_source
from pwfn.data.fingerprint import digest_file
from pwfn.paths import expand_path

Fingerprint = dict[str, str]
"""Maps a name in words, as messages show it (`number of training images`), to a count or a digest."""


def fingerprint_inputs(config: TrialConfig) -> Fingerprint:
    """Describe the data and the checkpoint of a trial: with its configuration and the code they decide its numbers.

    Raises:
        UserError: data that cannot be opened.
    """
    # Not from the cache of `pwfn.trial.run`: that holds the data as they were when an earlier trial opened them.
    found = open_source(config.data, seed=config.split_seed).fingerprint()
    if config.model.checkpoint is not None:
        found["model.checkpoint"] = digest_file(expand_path(config.model.checkpoint, "model.checkpoint"))
    return found
