"""Makes the report of studies again and again while they run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from analysis.errors import AnalysisError
from analysis.report import write_report
from analysis.study import Study, load


def watch(folders: Sequence[str], out: str, *, seconds: float) -> Iterator[str]:
    """Make the report again whenever another trial has ended, and yield one line each time.

    This ends when all planned trials of every study have ended, and all that were begun. Each file is moved into place
    whole, so a page that is open in a browser can be loaded again at any time.

    Args:
        folders: the folders of the studies.
        out: the folder of the report.
        seconds: time between two looks at the studies.

    Raises:
        AnalysisError: the first report cannot be made; later ones say so in their line and are tried again.
    """
    shown: list[int] | None = None
    while True:
        try:
            studies = [load(folder) for folder in folders]
            ended = [study.num_ended for study in studies]
            if ended != shown:
                page = next(path for path in write_report(studies, out) if path.endswith(".html"))
                shown = ended
                yield f"{time.strftime('%H:%M:%S')}  {', '.join(map(_progress, studies))}: {page}"
            if not any(map(_goes_on, studies)):
                return
        except AnalysisError as error:
            if shown is None:
                raise
            yield f"{time.strftime('%H:%M:%S')}  {error}; trying again"
        time.sleep(seconds)


def _goes_on(study: Study) -> bool:
    """Whether more trials will end: some are running, or the plan has more, or is not known."""
    planned = study.card.get("num_trials")
    if study.folder is None or not isinstance(planned, int) or study.num_ended < planned:
        return True
    ended = {f"{trial_id}.json" for trial_id in study.trials["trial_id"]}
    return not ended.issuperset((study.folder / "proposals").files(".json"))


def _progress(study: Study) -> str:
    planned = study.card.get("num_trials")
    ended = study.num_ended
    of_all = f" of {planned}" if isinstance(planned, int) and ended <= planned else ""  # replicates are in no plan
    return f"{study.name}: {ended}{of_all} trials ended, {study.num_running} running"
