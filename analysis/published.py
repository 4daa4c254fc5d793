"""Numbers that others have published (published.csv), shown only beside the same model and data, and labelled so."""

from __future__ import annotations

import re
from importlib.resources import files

import pandas as pd

_IMAGENET = {"imagenet", "imagenet1k", "ilsvrc2012", "ilsvrc", "imagenet2012", "in1k"}


def published(panel: str) -> pd.DataFrame:
    """Select the published rows for a panel `MODEL on DATA`; the tag of a timm model's weights is ignored."""
    model, _, data = panel.partition(" on ")
    with files("analysis").joinpath("published.csv").open() as table:
        rows = pd.read_csv(table)
    plain = re.sub(r"[^a-z0-9]", "", data.lower())
    known = "imagenet" if plain in _IMAGENET else plain
    chosen = rows[(rows["model"] == model.partition(".")[0]) & (rows["data"] == known)]
    return chosen.reset_index(drop=True)
