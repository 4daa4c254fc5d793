"""Rehearses deit.yaml on a small ImageNet: every step of the way as a user takes it, with its time and memory.

    python tests/benchmarks/rehearsal.py                                 minutes on two CPU cores, nothing is needed
    python tests/benchmarks/rehearsal.py --photos 100 --set training.steps_per_epoch=20
    python tests/benchmarks/rehearsal.py --imagenet /data/imagenet --set resources.gpus_per_worker=1 \\
        model.pretrained=true baseline.epochs=0 data.train_images=20000 training.steps_per_epoch=50

Makes photos in ImageNet's layout and of its kinds: sizes around 500 x 375, grey ones, one in CMYK, one turned by EXIF.
Then it runs the launchers: plan and check of every image, the float network, a trial with two workers under Ray Train,
report, export, evaluation of the exported file. Without ImageNet and its weights the float network is trained first,
for an epoch, so the accuracies mean nothing; rounds, network and image size are those of the space, the precision too
where the machine has bfloat16. `memory` is the peak of all processes of a step together, shared pages counted once
(Linux; elsewhere what each has for itself), `largest` that of the largest process. Whatever fails ends it, and names
the step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

from printed import conditions

from pwfn.results.store import ResultsStore

LAUNCHERS = Path(__file__).parents[2] / "launchers"
STUDY = "rehearsal"
SMALL = (
    "model.name=deit_tiny_patch16_224", "model.pretrained=false", "baseline.epochs=1", "baseline.batch_size=16",
    "resources.workers=2", "resources.cpus_per_worker=1", "resources.gpus_per_worker=0", "data.loader_workers=1",
    "data.validation_fraction=0.1", "training.batch_size=16", "training.steps_per_epoch=1", "evaluation.batch_size=16",
    "search.trials=1", "search.checkpoint_minutes=0.1", "search.baselines=false",
)  # fmt: skip
"""What makes a laptop bear deit.yaml; each can be set otherwise."""
SIZES = ((500, 375), (375, 500), (500, 333), (333, 500), (400, 400), (640, 480))
"""Width and height of photos, about as often as in ImageNet."""
QUALITY = 90
MARK = "PWFN_REHEARSAL"
"""Environment variable by which the processes of a step are known, Ray's own among them."""
SECONDS_BETWEEN_LOOKS = 0.5
GIB = 2**30


def main() -> None:
    """Print a line for each step, then what the trial's seconds were spent on."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--imagenet", metavar="DIR", help="a folder with train/ and val/ instead of made photos")
    parser.add_argument("--classes", type=int, default=10, help="default: 10")
    parser.add_argument("--photos", type=int, default=12, help="training photos per class (default: 12)")
    parser.add_argument("--val", type=int, default=3, help="photos per class in val/ (default: 3)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], dest="overrides", metavar="FIELD=VALUE")
    arguments = parser.parse_args()
    print(conditions(), flush=True)
    with tempfile.TemporaryDirectory() as place:
        rehearse(Path(place), arguments)


def rehearse(folder: Path, arguments: argparse.Namespace) -> None:
    """Take every step in a folder."""
    root = Path(arguments.imagenet or folder / "imagenet").absolute()
    print(f"{'step':<16} {'seconds':>8} {'memory':>10} {'largest':>10}", flush=True)
    if arguments.imagenet is None:
        with measured("photos"):
            make_photos(root, arguments.classes, {"train": arguments.photos, "val": arguments.val})
    steps = Steps(folder)
    overrides = [f"data.root={root}", *SMALL, *precision_here(), *arguments.overrides]
    last = {override.partition("=")[0]: override for override in overrides}  # what the user says wins
    search = ("search", "--space", "deit.yaml", "--study", STUDY, "--results", str(folder / "results"))
    steps.take("plan and check", *search, "--dry-run", "--check-data", "--set", *last.values())
    steps.take("float network", *search, "--only-float", "--set", *last.values())
    steps.take("search", *search, "--set", *last.values())
    store = ResultsStore(str(folder / "results"), STUDY)
    complete = [row for row in store.read_trials() if row["state"] == "complete"]
    if not complete:
        sys.exit(f"no trial is complete: {[row.get('failure_message') for row in store.read_trials()]}")
    row = min(complete, key=lambda each: each["unique_values"])
    file = folder / "network.pwfn.safetensors"
    of_study = ("--study", STUDY, "--results", str(folder / "results"))
    steps.take("report", "report", *of_study)
    steps.take("export", "export", *of_study, "--trial", row["trial_id"], "--out", str(file))
    test_images = last.get("data.test_images", "").partition("=")[2]
    limit = ["--data-test-images", test_images] if test_images.isdecimal() else []
    said = steps.take("evaluate", "evaluate", str(file), "--data-root", str(root), "--batch-size", "16", *limit)
    print(f"largest checkpoint {steps.largest_checkpoint / 2**20:.1f} MiB, "
          f"{steps.largest_checkpoint / row['num_weights']:.1f} bytes per weight")  # fmt: skip
    rounds = store.read_rounds(row["trial_id"])
    seconds = {name: sum(each[f"{name}_seconds"] for each in rounds) for name in ("train", "data", "fix", "eval")}
    print(f"trial {row['trial_id']}: {len(rounds)} rounds, training {seconds['train']:.1f} s, of which "
          f"{seconds['data']:.1f} s waiting for images, fixing {seconds['fix']:.1f} s, "
          f"measuring {seconds['eval']:.1f} s of {row['wall_seconds']:.1f} s")  # fmt: skip
    size = file.stat().st_size
    print(f"{row['unique_values']} values, {size:,} bytes, test accuracy {row['test_top1']:.2%} in the trial")
    print(said.strip())


def precision_here() -> list[str]:
    """Set float32 where this machine has no bfloat16 of its own: to imitate it took ten times as long."""
    if torch.cuda.is_available():
        return []
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(1024, 1024, dtype=dtype)
        square @ square  # the first one prepares
        began = time.process_time()
        square @ square
        seconds.append(time.process_time() - began)
    if seconds[1] < 1.5 * seconds[0]:
        return []
    print(
        f"bfloat16 takes {seconds[1] / seconds[0]:.0f} times as long as float32 here: training.precision=float32",
        flush=True,
    )
    return ["training.precision=float32"]


class Steps:
    """Runs the launchers in a folder, measures each and keeps what it says.

    Args:
        folder: in which they run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.largest_checkpoint = 0
        """Bytes, as far as the looks every half a second have met one."""

    def take(self, step: str, launcher: str, *options: str) -> str:
        """Run a launcher to its end and return what it printed; end here if it fails, with all that it said."""
        mark = uuid.uuid4().hex
        command = [sys.executable, str(LAUNCHERS / f"{launcher}.py"), *options]
        with measured(step, mark, self._look):
            done = subprocess.run(
                command, cwd=self.folder, env={**os.environ, MARK: mark}, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        if done.returncode != 0:
            sys.exit(f"{step} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def _look(self) -> None:
        for file in (self.folder / "results" / STUDY / "checkpoints").glob("*"):
            try:
                self.largest_checkpoint = max(self.largest_checkpoint, file.stat().st_size)
            except FileNotFoundError:  # replaced in this moment
                continue


@dataclass
class Peak:
    """Largest numbers of bytes seen."""

    together: int = 0
    of_one: int = 0


@contextmanager
def measured(step: str, mark: str | None = None, look: object = None) -> Iterator[None]:
    """Print the seconds and the peak memory of what runs inside: of the processes with a mark, or of this one."""
    peak, is_over = Peak(), threading.Event()

    def watch() -> None:
        while not is_over.wait(SECONDS_BETWEEN_LOOKS):
            sizes = [size_of(each) for each in processes(mark)]
            peak.together = max(peak.together, sum(sizes))
            peak.of_one = max(peak.of_one, *sizes, 0)
            if callable(look):
                look()

    watching = threading.Thread(target=watch, daemon=True)
    began = time.perf_counter()
    watching.start()
    try:
        yield
    finally:
        seconds = time.perf_counter() - began
        is_over.set()
        watching.join()
    print(f"{step:<16} {seconds:8.1f} {peak.together / GIB:6.2f} GiB {peak.of_one / GIB:6.2f} GiB", flush=True)


def processes(mark: str | None) -> Sequence[psutil.Process]:
    """List the processes whose environment has a mark; None: this process."""
    if mark is None:
        return [psutil.Process()]
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):  # another user's, or gone
            continue
    return found


def size_of(process: psutil.Process) -> int:
    """Bytes of a process, its share of shared pages included where the system knows it; 0 if it is gone."""
    try:
        memory = process.memory_full_info()
    except (psutil.Error, OSError):
        return 0
    return int(getattr(memory, "pss", memory.uss))


def make_photos(root: Path, num_classes: int, per_class: dict[str, int]) -> None:
    """Write JPEG files as `root/PART/CLASS/CLASS_NUMBER.JPEG`, with ImageNet's kinds of names.

    Natural images have amplitudes of about 1 / frequency; so have these, in luminance and, weaker, in colour. A class
    has a colour and a grating of its own, so that there is something to learn.
    """
    generator = np.random.default_rng(0)
    for part, number in per_class.items():
        for label in range(num_classes):
            name = f"n{1440764 + 1000 * label:08d}"
            folder = root / part / name
            folder.mkdir(parents=True)
            for place in range(number):
                image = photo(generator, label / num_classes)
                exif = Image.Exif()
                is_first = part == "train" and place == 0
                if is_first and label == 0:
                    exif[0x0112] = 6  # turned: shown upright by what reads EXIF, and lying here, as in timm
                if is_first and label == 1:
                    image = image.convert("CMYK")
                if place % 50 == 7:
                    image = image.convert("L")
                image.save(folder / f"{name}_{place}.JPEG", "JPEG", quality=QUALITY, exif=exif)


def photo(generator: np.random.Generator, hue: float) -> Image.Image:
    """Make one photo of a class, which `hue` in [0, 1) tells from others."""
    width, height = SIZES[generator.integers(len(SIZES))]
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf  # the mean is added below
    phases = np.exp(2j * np.pi * generator.random((3, *frequency.shape)))
    luminance, red, blue = np.fft.irfft2(phases / frequency, s=(height, width))
    angle = np.pi * hue
    grating = np.sin((np.arange(width)[None] * np.cos(angle) + np.arange(height)[:, None] * np.sin(angle)) / 6)
    light = 118 + 45 * luminance / luminance.std() + 12 * grating
    red, blue = 14 * red / red.std() + 25 * np.cos(2 * angle), 14 * blue / blue.std() + 25 * np.sin(2 * angle)
    pixels = np.stack([light + red, light - (red + blue) / 2, light + blue], axis=2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
