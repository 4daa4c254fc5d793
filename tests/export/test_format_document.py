"""docs/decode.py is the format's second implementation: it must read what pwfn writes, to the bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pwfn.config import ModelConfig
from pwfn.export import describe_network, encode_network, encode_state
from pwfn.export.network import stored_state
from pwfn.models import build_network

DECODER = Path(__file__).parents[2] / "docs" / "decode.py"
ODD_VALUES = torch.tensor([0.0, -0.0, 0.5, -1.5, float("inf"), 1e-42, 2.0**-7, 0.3])


def run_decoder(tmp_path, content):
    source, target = tmp_path / "model.pwfn.safetensors", tmp_path / "weights.npz"
    source.write_bytes(content)
    subprocess.run([sys.executable, str(DECODER), str(source), str(target)], check=True, capture_output=True)
    return dict(np.load(target))


def assert_same_bits(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].tobytes() == tensor.numpy().tobytes()


def test_the_decoder_has_at_most_150_lines():
    assert len(DECODER.read_text().splitlines()) <= 150


def test_it_imports_numpy_and_the_standard_library_only():
    lines = DECODER.read_text().splitlines()
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


def test_it_reads_a_network(tmp_path):
    network = build_network(ModelConfig(name="digits_cnn"), num_classes=10, in_channels=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_((parameter * 16).round() / 16)
    assert_same_bits(run_decoder(tmp_path, encode_network(network, describe_network(network))), stored_state(network))


@pytest.mark.parametrize("seed", range(4))
def test_it_reads_any_state(tmp_path, seed):
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return ODD_VALUES[torch.randint(len(ODD_VALUES), shape, generator=rng)]

    fixed = {
        "a.weight": draw(30, 20),
        "b.weight": draw(70, 3, 3).abs() * 3,
        "lines": (torch.randn(90, 80, 1, 1, generator=rng) * torch.rand(90, 1, 1, 1, generator=rng) * 4).round(),
        "one_value": torch.full((50, 2), -0.0),
        "float": torch.randn(40, 5, generator=rng),
        "a.bias": draw(7),
        "empty": torch.empty(0, 4),
    }
    rest = {"norm": torch.randn(5, generator=rng), "steps": torch.tensor(12), "mask": torch.tensor([True, False])}
    assert_same_bits(run_decoder(tmp_path, encode_state(fixed, rest, {})), fixed | rest)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_it_widens_narrow_tensors(tmp_path, dtype):
    rest = {"norm": torch.randn(9)}
    found = run_decoder(tmp_path, encode_state({"w": torch.zeros(8, 8)}, rest, {}, rest_dtype=dtype))
    narrow = rest["norm"].to(getattr(torch, dtype))
    assert torch.equal(torch.from_numpy(found["norm"]).float(), narrow.float())


def test_it_refuses_a_damaged_file(tmp_path):
    content = bytearray(encode_state({"w": torch.zeros(8, 8)}, {}, {}))
    content[-40] ^= 1
    with pytest.raises(subprocess.CalledProcessError) as error:
        run_decoder(tmp_path, bytes(content))
    assert b"is damaged, or not a pwfn file" in error.value.stderr
