"""Parquet, WebDataset and everything else that Hugging Face's `datasets` reads, from a folder, a store or the hub.

`datasets` finds the splits, reads any layout and keeps one Arrow file per split in its cache, which is mapped into
memory: opening is cheap, and an image's bytes are read when it is decoded. Ours is what it leaves to its user: which
column holds what, whether shards or labels are missing, and one line for each of its errors.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import constants

from pwfn.config import DataConfig
from pwfn.data.collection import Collection
from pwfn.data.columns import Split, choose_columns, read_collection, recorded_names
from pwfn.data.remote import open_storage
from pwfn.data.roles import NAMES
from pwfn.errors import UserError, first_line
from pwfn.paths import expand_path
from pwfn.reach import answers

log = logging.getLogger(__name__)

SHARD = re.compile(r"^(?P<stem>.*)-(?P<number>\d{4,6})-of-(?P<total>\d{4,6})(?P<hash>-[0-9a-f]{8,})?(?P<rest>\..*)?$")
NUMBERED = re.compile(r"^(?P<stem>.*?)(?P<number>\d{3,})(?P<rest>\.[^/]*)$")
SUFFIXES = {"parquet": ".parquet", "webdataset": ".tar"}
"""Of the files that a kind of source reads."""


def open_hub(config: DataConfig, root: str | None) -> Collection:
    """Open a data set through `datasets`; what is not in its cache is converted, or downloaded, first.

    Raises:
        UserError: data that cannot be had or read, whose columns or splits are not plain, or of which a part is
            missing.
    """
    where = root or f"{config.dataset}"
    with one_line(where), _hub_only_if_reachable(root is None):
        splits = _saved(root) or _build(config, root)
    found = read_collection(config, splits, where, choose_columns(config, splits, where))
    return replace(found, notes=(*found.notes, *gaps(path for split in splits.values() for path in split.files)))


def _saved(root: str | None) -> Mapping[str, Split]:
    """Return what `save_to_disk` wrote, or nothing."""
    import datasets

    if root is None or "://" in root:
        return {}
    if (Path(root) / "dataset_dict.json").exists():
        return {name: Split(table, ()) for name, table in datasets.load_from_disk(root).items()}
    if (Path(root) / "state.json").exists():
        return {"train": Split(datasets.load_from_disk(root), ())}
    return {}


def _build(config: DataConfig, root: str | None) -> Mapping[str, Split]:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(
        logging.CRITICAL
    )  # what it logs as an error it also raises, and we say it in one line
    cache = None if config.cache is None else str(expand_path(config.cache, "data.cache"))
    arguments: dict[str, Any] = {"name": config.subset, "cache_dir": cache}
    if root is None:
        name, _, revision = (config.dataset or "").partition("@")
        builder = datasets.load_dataset_builder(name, revision=revision or None, **arguments)
    elif "://" in root:
        builder = _remote_builder(config, root, arguments)
    else:
        builder = _local_builder(config, root, arguments)
    files = {str(split): list(paths) for split, paths in (builder.config.data_files or {}).items()}
    check_shards([path for paths in files.values() for path in paths])
    _check_parquet(files)
    _check_disk(builder, files)
    builder.download_and_prepare()
    found = builder.as_dataset()
    by_folder = builder.name == "imagefolder"
    return {str(name): Split(found[name], tuple(files.get(str(name), ())), by_folder) for name in found}


@contextmanager
def _hub_only_if_reachable(is_on_hub: bool) -> Iterator[None]:
    """Let `datasets` look into its cache at once where the hub is out of reach; it would retry for half a minute."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    if is_on_hub and not before and not answers(constants.ENDPOINT):
        log.warning("%s is out of reach: only what is in the cache is found", constants.ENDPOINT)
        datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _local_builder(config: DataConfig, root: str, arguments: dict[str, Any]) -> Any:
    import datasets

    suffix = SUFFIXES.get(config.name)
    if suffix is not None:
        files = sorted(path for path in Path(root).rglob(f"*{suffix}") if not _is_hidden(path, root))
        if not files:
            hint = _what_is_there(Path(root))
            raise UserError(f"data.root: {root} has no file *{suffix} for data.name={config.name}{hint}")
        if not (Path(root) / "README.md").exists():
            by_split = group_by_split({path.relative_to(root).as_posix(): str(path) for path in files})
            return datasets.load_dataset_builder(config.name, data_files=by_split, **arguments)
    return datasets.load_dataset_builder(root, **arguments)


def group_by_split(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Group files by the split they are named after: `test.parquet`, `data/test-00000-of-00002.parquet`, `test/0.tar`.

    `datasets` would do so too, but drops files under names that it does not know, and joins whatever has one name.

    Args:
        files: the path below the root -> the whole path or address.

    Raises:
        UserError: a split that would consist of several sets of shards, or of one and other files: copies of the same
            images, or subsets that are meant to be apart.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    first: dict[str, dict[tuple[str, str, str] | None, str]] = defaultdict(dict)
    for below, whole in files.items():
        split, match = split_of(below), SHARD.match(below)
        groups[split].append(whole)
        first[split].setdefault(match and (match["stem"], match["total"], match["rest"] or ""), below)
    for split, kinds in first.items():
        if len(kinds) > 1 and any(kinds):
            one, other, *_ = kinds.values()
            raise UserError(
                f"data.root: {one} and {other} are both of the split {split}, but are no shards of one set; remove "
                "what is there twice, or set data.root to the folder of one of them"
            )
    return dict(groups)


def split_of(path: str) -> str:
    """Return the split that a file is named after: its name up to the number of a shard, else its folder's name."""
    return re.sub(r"\W+", "_", _split_in(path))  # `datasets` takes no other signs


def _split_in(path: str) -> str:
    *folders, name = path.split("/")
    stem = name.split(".")[0]
    match = SHARD.match(name)
    stem = match["stem"] if match else re.sub(r"[-_.]?\d+$", "", stem)
    stem = re.split(r"[-_.]\{?\d", stem)[0]
    inner = [folder for folder in folders if folder not in ("data", "default") and "=" not in folder]
    words = re.split(r"[-_.]", stem)
    if not stem or (inner and not any(_is_known(word) for word in words)):
        return inner[-1] if inner else "train"
    known = [word for word in words if _is_known(word)]
    return known[-1].lower() if len(known) == 1 else stem


def _is_known(word: str) -> bool:
    return any(word.lower() in names for names in NAMES.values())


def _remote_builder(config: DataConfig, root: str, arguments: dict[str, Any]) -> Any:
    import datasets

    storage = open_storage(root)
    suffix = SUFFIXES.get(config.name, ".parquet")
    paths = storage.find(suffix)
    if not paths:
        raise UserError(f"data.root: {root} has no file *{suffix}")
    files = {path.removeprefix(storage.base).lstrip("/"): f"{storage.protocol}://{path}" for path in paths}
    kind = config.name if config.name in SUFFIXES else "parquet"
    return datasets.load_dataset_builder(
        kind, data_files=group_by_split(files), storage_options=storage.options or None, **arguments
    )


def check_shards(paths: Iterable[str]) -> None:
    """Refuse a set of which shards are missing (`train-00001-of-00002.parquet`), or there twice under two hashes.

    Raises:
        UserError: names the first of them.
    """
    found: dict[tuple[str, int, str, int], dict[int, str]] = defaultdict(dict)
    for path in paths:
        match = SHARD.match(path)
        if match:
            key = (match["stem"], int(match["total"]), match["rest"] or "", len(match["number"]))
            twin = found[key].setdefault(int(match["number"]), path)
            if twin != path:
                raise UserError(f"data.root: {twin} and {path} are the same shard; remove one")
    for (stem, total, rest, digits), numbers in found.items():
        missing = sorted(set(range(total)) - numbers.keys())
        if missing:
            first = f"{stem}-{missing[0]:0{digits}d}-of-{total:0{digits}d}{rest}"
            raise UserError(f"data.root: {len(missing)} of {total} shards are missing, the first is {first}")


def gaps(paths: Iterable[str]) -> list[str]:
    """Say which numbers are missing among files whose names do not say how many there are (`train-000012.tar`)."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in paths:
        match = None if SHARD.match(path) else NUMBERED.match(path)
        if match:
            found[match["stem"], match["rest"]].append(match["number"])
    notes = []
    for (stem, rest), texts in found.items():
        numbers = sorted(map(int, texts))
        missing = sorted(set(range(numbers[0], numbers[-1])) - set(numbers))
        if missing and len(missing) < len(numbers):  # else the numbers count something else
            name = f"{Path(stem).name}{missing[0]:0{len(texts[0])}d}{rest}"
            notes.append(f"{len(missing)} files are missing between the first and the last number, such as {name}")
    return notes


def _check_parquet(files: Mapping[str, Sequence[str]]) -> None:
    """Refuse Parquet files that are damaged, a split without rows, and files whose records name other classes.

    `datasets` takes the first file's names for all, so that the labels of the others would mean something else.
    """
    first: tuple[str, Any] | None = None
    for split, paths in files.items():
        local = [path for path in paths if "://" not in path and path.endswith(".parquet")]
        num_rows = 0
        for path in local:
            try:
                record = pq.read_metadata(path)
                names = recorded_names(record.schema.to_arrow_schema())
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"{path}: not a readable Parquet file: {first_line(error)}") from error
            num_rows += record.num_rows
            first = first or (path, names)
            if names != first[1]:
                words = f"{names} instead of {first[1]} as in {Path(first[0]).name}"
                raise UserError(f"{path}: the schema's metadata names the classes {words}; labels would not agree")
        if local and not num_rows:
            raise UserError(f"{local[0]}: the split {split} holds no rows")


def _check_disk(builder: Any, files: Mapping[str, Sequence[str]]) -> None:
    """Refuse what would not fit on the disk of the cache; streaming is not done: it could not be shuffled the same."""
    local = [path for paths in files.values() for path in paths if "://" not in path]
    folder = Path(builder.cache_dir)
    if folder.exists() or not local:
        return
    needed = sum(os.path.getsize(path) for path in local)  # noqa: PTH202
    place = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"data.root: the Arrow files of {len(local)} files take about {needed / 2**30:.1f} GiB, but {place} has "
            f"{free / 2**30:.1f} GiB left; set data.cache to a folder on another disk (a set larger than any disk "
            "cannot be used: it could not be shuffled by its seed)"
        )
    if needed > 2**30:
        log.info("converting %.1f GiB to Arrow files under %s, once", needed / 2**30, place)


def _is_hidden(path: Path, root: str) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _what_is_there(root: Path) -> str:
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    shown = ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
    return f" (found: {shown or 'nothing'})"


@contextmanager
def one_line(where: str) -> Iterator[None]:
    """Turn whatever `datasets` and its file systems raise into one line.

    Raises:
        UserError: names the data and the cause that lies deepest.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # builders, file systems and decoders raise nearly anything
        cause: BaseException = error
        while cause.__cause__ is not None or (cause.__context__ is not None and not str(cause)):
            cause = cause.__cause__ or cause.__context__ or cause
        if isinstance(cause, ValueError) and "invalid literal for int()" in str(cause):
            raise UserError(f"data: {where}: a .cls entry is no number ({cause}); store text labels as .txt") from error
        known = isinstance(cause, Exception)
        words = first_line(cause) if known else type(cause).__name__
        raise UserError(f"data: {where} cannot be read by datasets: {type(cause).__name__}: {words}") from error
