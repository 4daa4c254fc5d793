"""What trials read: their data and their checkpoint, fingerprinted where a trial would run."""

from __future__ import annotations

from pwfn.config import TrialConfig
from pwfn.data import open_source
from pwfn.data.fingerprint import digest_file
from pwfn.paths import expand_path

Fingerprint = dict[str, str]
"""Words for a message (`number of training images`) -> a count or a digest."""


def fingerprint_inputs(config: TrialConfig) -> Fingerprint:
    """Describe what a trial's float network and its accuracies come from, besides its configuration and the code.

    Raises:
        UserError: data that cannot be opened.
    """
    # Opened anew: a process that ran trials before keeps the data as it was then.
    found = open_source(config.data, seed=config.split_seed).fingerprint()
    if config.model.checkpoint is not None:
        found["model.checkpoint"] = digest_file(expand_path(config.model.checkpoint, "model.checkpoint"))
    return found
