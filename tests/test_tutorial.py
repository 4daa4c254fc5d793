"""docs/tutorial.md: its commands and snippets run in order in one folder, and print what the page says they print."""

import argparse
import contextlib
import io
import re
import shlex
from collections.abc import Callable, Iterator
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.utils import CheckpointSaver
from torchvision.datasets import ImageFolder

from pwfn.commands import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 32
EPOCHS = 3


def write_pictures(folder: Path) -> None:
    """Write scikit-learn's digits as `PART/CLASS/NUMBER.png`; every fifth of a class is in val."""
    digits = load_digits()
    for label, name in enumerate(CLASSES):
        for number, levels in enumerate(digits.images[digits.target == label]):
            file = folder / ("train" if number % 5 else "val") / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 / 16 * levels).astype(np.uint8)).resize((SIDE, SIDE)).save(file)


def train_with_timm(pictures: Path, out: Path) -> None:
    """Train timm's smallest ResNet and save it as timm's train.py does."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=len(CLASSES))
    prepared = {**timm.data.resolve_model_data_config(network), "input_size": (3, SIDE, SIDE)}
    data = ImageFolder(str(pictures / "train"), timm.data.create_transform(**prepared))
    images, labels = torch.stack([image for image, _ in data]), torch.tensor([label for _, label in data])
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=EPOCHS * (len(images) // 64))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images))[: len(images) // 64 * 64].view(-1, 64):
            loss = torch.nn.functional.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    out.mkdir()
    arguments = argparse.Namespace(model="test_resnet", img_size=SIDE)
    CheckpointSaver(network, optimizer, args=arguments, checkpoint_dir=str(out)).save_checkpoint(EPOCHS, metric=99.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the reader has, as the current folder: pictures and a checkpoint."""
    write_pictures(tmp_path / "pictures")
    train_with_timm(tmp_path / "pictures", tmp_path / "output")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks() -> Iterator[tuple[int, str, str]]:
    """Yield line number, language and text of each fenced block."""
    text = PAGE.read_text()
    for found in BLOCK.finditer(text):
        yield text.count("\n", 0, found.start()) + 1, found[1], found[2]


def run_commands(lines: str) -> None:
    """Run them in this process, which has imported torch already."""
    for line in lines.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "pwfn"
        assert main(arguments) == 0, line


def run_snippet(code: str) -> None:
    exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})


def printed(run: Callable[[str], None], text: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        run(text)
    return out.getvalue()


def without_numbers(text: str) -> str:
    """The page has the numbers of one run; those of another machine may differ."""
    return re.sub(r"[━─]+", "-", re.sub(r"\d+([,.:]\d+)*", "N", text))


@pytest.mark.cluster
def test_every_block_of_the_tutorial_runs_and_prints_what_the_page_says(folder: Path) -> None:
    output = ""
    for line, language, text in blocks():
        match language:
            case "yaml":
                name = text.splitlines()[0].removeprefix("# ")
                Path(name).write_text(text)
            case "sh":
                output = printed(run_commands, text)
            case "python":
                output = printed(run_snippet, text)
            case "text":
                wanted, found = without_numbers(text), without_numbers(output)
                alike = OutputChecker().check_output(wanted, found, ELLIPSIS | NORMALIZE_WHITESPACE)
                assert alike, f"tutorial.md, line {line}:\n{text}\nis not what was printed:\n{output}"
            case _:
                pytest.fail(f"tutorial.md, line {line}: nothing runs a block of {language}")
    assert {path.name for path in folder.iterdir()} >= {"digits.pwfn.safetensors", "digits.onnx", "results"}


def test_the_tutorial_is_short_and_its_snippets_have_ten_lines() -> None:
    assert len(PAGE.read_text().splitlines()) < 200
    snippets = [text for _, language, text in blocks() if language == "python"]
    assert len(snippets) == 2
    assert all(len(list(filter(None, snippet.splitlines()))) <= 10 for snippet in snippets)
