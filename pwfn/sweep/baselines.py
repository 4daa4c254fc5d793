"""What a search has to beat, beside every study: k-means without training, in three kinds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pwfn.naming import BASELINE
from pwfn.search.study import SearchStudy
from pwfn.sweep.listed import Listed
from pwfn.sweep.ownership import Ownership
from pwfn.trial.rows import Row

NUMS_OF_VALUES = (4, 8, 16, 32, 64)
KINDS = {
    "kmeans": {"weighting": "plain"},
    "kmeans-fisher": {"weighting": "fisher"},
    "kmeans-gptq": {"weighting": "fisher", "assignment": "gptq"},
}
"""How the names of baselines begin -> their settings. The last is the strongest known that needs no training."""


class Baselines(Listed):
    """Gives Tune the baselines that a study lacks: `kmeans-16`, `kmeans-fisher-16`, `kmeans-gptq-16` and so on.

    Each runs in seconds, or minutes, from the study's own float network, so that a report never lacks the simple
    answer. Where trials start from several float networks, each has its own baselines, `kmeans-16.1` for the second.

    Args:
        study: beside which they run.
        ended: rows of the trials that have ended.
        ownership: decides which of several drivers runs a trial; None where there is only one.
    """

    def __init__(self, study: SearchStudy, ended: Sequence[Row], ownership: Ownership | None = None) -> None:
        known = {each: study.store.read_proposal(each) for each in study.store.proposal_ids()}
        proposals = (known.get(each["trial_id"]) or each for each in _proposals(study))
        super().__init__(study, proposals, known, {row["trial_id"] for row in ended}, ownership)


def _proposals(study: SearchStudy) -> Iterator[dict[str, Any]]:
    space = study.space
    if not space.search.baselines or space.methods == {"kmeans"}:
        return
    for index, params in enumerate(space.float_network_params()):
        for name, settings in KINDS.items():
            for num_values in NUMS_OF_VALUES:
                method = {"name": "kmeans", "num_values": num_values, **settings}
                suffix = f".{index}" if index else ""
                yield {"trial_id": f"{name}-{num_values}{suffix}", "number": None, "params": params, BASELINE: method}
