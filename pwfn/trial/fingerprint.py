"""Fingerprints of what a trial reads, its data and its checkpoint, taken in a place where a trial would run."""

from __future__ import annotations

from pwfn.config import ModelConfig, TrialConfig
from pwfn.data import open_source
from pwfn.data.fingerprint import digest_file
from pwfn.models.reading import checkpoint_files
from pwfn.models.sources import folder_of
from pwfn.paths import expand_path

Fingerprint = dict[str, str]
"""Maps a name in words, as messages show it (`number of training images`), to a count or a digest."""


def fingerprint_inputs(config: TrialConfig) -> Fingerprint:
    """Describe the data and the checkpoints of a trial: with its configuration and the code they decide its numbers.

    Raises:
        UserError: data that cannot be opened.
    """
    # Not from the cache of `pwfn.trial.run`: that holds the data as they were when an earlier trial opened them.
    found = open_source(config.data, seed=config.split_seed).fingerprint()
    teacher = config.baseline.teacher
    of_teacher = teacher.checkpoint if isinstance(teacher, ModelConfig) else teacher
    for field, path in (("model.checkpoint", config.model.checkpoint), ("baseline.teacher", of_teacher)):
        if path is not None:
            digests = [digest_file(file) for file in checkpoint_files(expand_path(path, field))]
            found[field] = digests[0] if len(digests) == 1 else " ".join(digests)
    if config.model.name.startswith("local-dir:"):
        files = sorted(file for file in folder_of(config.model.name).iterdir() if file.is_file())
        found["model.name"] = " ".join(f"{file.name} {digest_file(file)}" for file in files)
    return found
