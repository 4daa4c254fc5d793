"""Reads a results folder and says what it holds: the front, its hypervolume, tables and figures.

Stands on the Parquet schema and the list of metrics alone: neither torch nor Ray is imported, so it runs on a laptop,
while a sweep runs elsewhere.
"""

from analysis.errors import AnalysisError
from analysis.feasible import nearest_miss
from analysis.front import Hypervolume, front, hypervolume
from analysis.report import front_tables, verdicts, write_report
from analysis.series import configurations
from analysis.study import Study, load, studies, study_folder
from analysis.watch import watch

__all__ = [
    "AnalysisError",
    "Hypervolume",
    "Study",
    "configurations",
    "front",
    "front_tables",
    "hypervolume",
    "load",
    "nearest_miss",
    "studies",
    "study_folder",
    "verdicts",
    "watch",
    "write_report",
]
