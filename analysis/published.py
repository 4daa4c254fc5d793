"""Published numbers (published.csv), for the same model and data only, and labelled as what others report."""

from __future__ import annotations

import re
from importlib.resources import files

import pandas as pd

_IMAGENET = {"imagenet", "imagenet1k", "ilsvrc2012", "ilsvrc", "imagenet2012", "in1k"}


def published(panel: str) -> pd.DataFrame:
    """Select the published rows for `MODEL on DATA`, a timm model (weights' tag left out) and a data set's name."""
    model, _, data = panel.partition(" on ")
    with files("analysis").joinpath("published.csv").open() as table:
        rows = pd.read_csv(table)
    plain = re.sub(r"[^a-z0-9]", "", data.lower())
    known = "imagenet" if plain in _IMAGENET else plain
    chosen = rows[(rows["model"] == model.partition(".")[0]) & (rows["data"] == known)]
    return chosen.reset_index(drop=True)
