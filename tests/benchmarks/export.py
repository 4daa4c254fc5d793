"""Measures the exported file against its earlier version, the entropy and other coders, in one run.

    python tests/benchmarks/export.py --networks FOLDER [--nncodec PYTHON] [--out tables.md]

FOLDER holds `resnet20.safetensors` and `resnet32.safetensors` of CIFAR-10; they are clustered by plain k-means over the
whole network. `--nncodec` names a Python that has nncodec (ISO/IEC 15938-17); coders that are not installed are left
out by name. Sizes are exact; seconds are of the process, on one thread; memory is the peak beyond the weights.
"""

from __future__ import annotations

import argparse
import json
import lzma
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.util import find_spec
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from printed import hardware  # noqa: E402

from pwfn.codebook import Codebook, entropy_bits  # noqa: E402
from pwfn.config import ModelConfig  # noqa: E402
from pwfn.export import describe_network, encode_network, encode_state, load_state  # noqa: E402
from pwfn.export.alone import decode as decode_with_torch  # noqa: E402
from pwfn.export.container import read_envelope, unpack  # noqa: E402
from pwfn.export.layout import Coding, Kind, Role, write_layout  # noqa: E402
from pwfn.export.state import zip_bytes  # noqa: E402
from pwfn.export.stream import decode  # noqa: E402
from pwfn.methods.kmeans.values import kmeans_values, nearest_values  # noqa: E402
from pwfn.models import build_network  # noqa: E402
from pwfn.parameters import split_parameters  # noqa: E402

State = dict[str, torch.Tensor]
RESNETS, VALUES = (20, 32), (8, 11, 16, 32, 64)
KINDS = ("3x3 kernels", "scales differ", "scales alike", "float (not clustered)")
MEGABYTE = 2**20


def fixed_names(state: State) -> list[str]:
    """Names of the weights of convolutions and linear layers, and of the biases of linear layers."""
    linear = {name.removesuffix("weight") for name, tensor in state.items() if tensor.ndim == 2}
    return [name for name, t in state.items() if t.ndim > 1 or (name.endswith("bias") and name[:-4] in linear)]


def cluster(state: State, num_values: int) -> State:
    """Replace the fixed set by its k-means values."""
    names = fixed_names(state)
    values = kmeans_values(np.concatenate([state[name].numpy().ravel() for name in names]), num_values)
    near = {name: nearest_values(state[name].numpy().ravel(), values).reshape(state[name].shape) for name in names}
    return state | {name: torch.from_numpy(array) for name, array in near.items()}


def payload_bytes(content: bytes) -> int:
    """Bytes of a file without names, shapes, metadata, checksum and envelope, for the comparison with other coders."""
    layout = unpack(content, read_envelope(content), decode).packed.layout
    records = [replace(each, coding=Coding(Kind.STORED)) for each in layout.records if each.role != Role.PART]
    bare = write_layout(replace(layout, palettes=(), tables=(), records=tuple(records)))
    return len(content) - len(zlib.compress(bare, 9)) - 32 - 8 - int.from_bytes(content[:8], "little")


def entropies(tensors: Iterable[torch.Tensor]) -> float:
    """Sum over tensors of the bytes that each needs at its own entropy."""
    return sum(entropy_bits(Codebook.of(tensor).counts) * tensor.numel() / 8 for tensor in tensors)


def general_coders() -> dict[str, Callable[[bytes], bytes]]:
    """Compressors by name, those that are installed."""
    coders: dict[str, Callable[[bytes], bytes]] = {"xz": lambda content: lzma.compress(content, preset=9)}
    if find_spec("brotli"):
        import brotli

        coders["brotli"] = brotli.compress
    if find_spec("zstandard"):
        import zstandard

        coders["zstd"] = zstandard.ZstdCompressor(level=19).compress
    return coders


def smallest(compress: Callable[[bytes], bytes], positions: np.ndarray, num_values: int) -> int:
    """Bytes of a general coder: the better of one byte per position and, up to 16 values, half a byte."""
    forms = [positions.astype(np.uint8).tobytes()]
    if num_values <= 16:
        padded = np.append(positions, np.zeros(len(positions) % 2, positions.dtype)).astype(np.uint8)
        forms.append((padded[::2] | padded[1::2] << 4).tobytes())
    return min(len(compress(form)) for form in forms)


def nncodec_bytes(python: str, weights: State, values: np.ndarray) -> int:
    """Bytes of ISO/IEC 15938-17 for the positions, counted from the value next to zero."""
    zero = int(np.abs(values).argmin())
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        positions = {name: np.searchsorted(values, tensor.numpy()) - zero for name, tensor in weights.items()}
        np.savez(file, **{name: array.astype(np.int32) for name, array in positions.items()})
        file.flush()
        command = [python, str(Path(__file__).with_name("nncodec_size.py")), file.name]
        return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["bytes"])


def network_row(state: State, label: str, num_values: int, python: str | None) -> list[str]:
    """Bytes of the clustered weights with every coder, and of the whole file in this version and in version 1."""
    from version1_encoder import encode as encode_version1

    state = cluster(state, num_values)
    weights = {name: state[name] for name in fixed_names(state)}
    flat = torch.cat([tensor.reshape(-1) for tensor in weights.values()])
    values = np.unique(flat.numpy())
    positions = np.searchsorted(values, flat.numpy())
    rest = {name: tensor for name, tensor in state.items() if name not in weights}
    whole = encode_state(weights, rest, {})
    alone = encode_state(weights, {}, {})
    if any(not torch.equal(tensor, state[name]) for name, tensor in load_state(whole).items()):
        raise SystemExit(f"{label}: decoded weights differ")
    # All of the file but names and the rest: what the rest costs, it costs without the weights, too.
    ours = payload_bytes(alone)
    codebook = 4 * len(values)
    version1 = encode_version1({name: tensor.numpy() for name, tensor in weights.items()}).num_bytes
    found = {
        "entropy": round(entropies([flat])) + codebook,
        "layers": round(entropies(weights.values())) + codebook,
        "version 1": version1,
        "zip": smallest(lambda content: zlib.compress(content, 9), positions, len(values)) + codebook,
        **{name: smallest(coder, positions, len(values)) + codebook for name, coder in general_coders().items()},
        "nncodec": nncodec_bytes(python, weights, values) + codebook if python else None,
        "pwfn": ours,
        "file": len(whole),
        "its zip": zip_bytes(save(state)),
    }
    texts = {name: "not installed" if size is None else f"{size:,}" for name, size in found.items()}
    texts["against version 1"] = f"{len(whole) / (version1 + version1_rest(weights, rest)) - 1:+.1%}"
    return [label, *texts.values()]


def version1_rest(weights: State, rest: State) -> int:
    """Bytes of a file of version 1 beside its payload: other tensors as they are, and names and shapes twice, in JSON.

    Without metadata and offsets, so rather too few: for an 11-value ResNet-20 1 % less than the encoder of that time.
    """
    layers = [{"name": name, "shape": list(tensor.shape), "table": 0} for name, tensor in weights.items()]
    entries = {
        name: {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [0, 0]} for name, tensor in rest.items()
    }
    text = json.dumps({"__metadata__": {"pwfn": json.dumps({"layers": layers})}} | entries)
    return len(text) + 8 + 32 + sum(tensor.nbytes for tensor in rest.values())


LOADS = {
    "torch": "import torch",
    "torch, without numpy": "import sys; sys.modules['numpy'] = None; import torch",
    "torch, without numpy, load_state": (
        "import sys; sys.modules['numpy'] = None; import torch; from pwfn.export import load_state"
    ),
    "torch, load_state": "import torch; from pwfn.export import load_state",
    "torch, timm": "import torch, pwfn.torchvision_shim, timm",
    "torch, timm, pwfn.load": "import torch, pwfn.torchvision_shim, timm, pwfn; pwfn.load",
}
LOADERS = {
    "torch.load, timm.create_model, load_state_dict": (
        "import torch, pwfn.torchvision_shim, timm",
        "network = timm.create_model('resnet50'); network.load_state_dict(torch.load({plain!r}, weights_only=True))",
    ),
    "pwfn.load": ("import torch, pwfn.torchvision_shim, timm, pwfn; pwfn.load", "pwfn.load({file!r})"),
    "torch.load": ("import torch", "torch.load({plain!r}, weights_only=True)"),
    "pwfn.export.load_state": ("import torch; from pwfn.export import load_state", "load_state({file!r})"),
}
TURNS = 5


def load_rows() -> Iterable[list[str]]:
    """CPU seconds in new processes on one thread, medians of turns: imports, and a ResNet-50 of 16 values."""
    for label, code in LOADS.items():
        yield [f"imports: {label}", f"{seconds_of('', code):.2f}"]
    with tempfile.TemporaryDirectory() as folder:
        paths = {"plain": f"{folder}/plain.pth", "file": f"{folder}/model.pwfn.safetensors"}
        network = build_network(ModelConfig(name="resnet50"), num_classes=1000, in_channels=3)
        with torch.no_grad():
            for parameter in split_parameters(network).fixable.values():
                step = parameter.std().clamp(min=1e-6) / 2
                parameter.copy_((parameter / step).round().clamp(-8, 7) / 32)
        torch.save(network.state_dict(), paths["plain"])
        Path(paths["file"]).write_bytes(encode_network(network, describe_network(network)))
        for label, (imports, code) in LOADERS.items():
            yield [f"ResNet-50: {label}", f"{seconds_of(imports, code.format(**paths)):.2f}"]


def seconds_of(imports: str, code: str) -> float:
    """CPU seconds of the code after the imports."""
    start = "import time; start = time.process_time()"
    threads = "; torch.set_num_threads(1)" if imports else ""
    script = f"{imports}{threads}\n{start}\n{code}\nprint(time.process_time() - start)"
    command, folder = [sys.executable, "-c", script], Path(__file__).parents[2]
    runs = (subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder) for _ in range(TURNS))
    return statistics.median(float(run.stdout) for run in runs)


def grouped(weights: torch.Tensor, kind: str) -> torch.Tensor:
    """Quantise a weight as other tools do, each output channel by itself."""
    rows = weights.reshape(len(weights), -1)
    if kind == "16 values per channel":
        found = [nearest_values(row, kmeans_values(row, 16)) for row in rows.numpy()]
        return torch.from_numpy(np.stack(found)).reshape(weights.shape)
    largest = {"int4": 7, "int8": 127}[kind.split()[0]]
    scale = rows.abs().amax(dim=1, keepdim=True) / largest
    return ((rows / scale).round().clamp(-largest - 1, largest) * scale).reshape(weights.shape)


def grouped_row(state: State, kind: str) -> list[str]:
    """Bytes of a network with a codebook per channel: its file, and its float32 weights with zip and xz."""
    state = state | {name: grouped(state[name], kind) for name in fixed_names(state) if state[name].ndim > 1}
    content = encode_state(state, {}, {})
    if any(not torch.equal(tensor, state[name]) for name, tensor in load_state(content).items()):
        raise SystemExit(f"{kind}: decoded weights differ")
    plain = save(state)
    return [kind, f"{len(content):,}", f"{zip_bytes(plain):,}", f"{len(lzma.compress(plain, preset=6)):,}"]


def draw_layers(num_weights: int, kind: str) -> dict[str, np.ndarray]:
    """Layers of clustered weights in ResNet-50's sizes: He-scaled normals, rounded to sums of up to two powers of two.

    In 3x3 kernels neighbours correlate, as they do in trained networks.
    """
    rng = np.random.default_rng(0)
    powers = 2.0 ** np.arange(-7, 1)
    sums = {sum(pair) for pair in combinations_with_replacement([0.0, *powers], 2)}
    values = np.array(sorted(sums | {-value for value in sums}), np.float32) + np.float32(0)
    borders = (values[1:] + values[:-1]) / 2
    fans = rng.choice([64, 256, 576, 1152, 2304, 4608], 53)
    sizes = rng.multinomial(num_weights, fans / fans.sum())
    layers = {}
    for index, (fan, size) in enumerate(zip(fans, sizes, strict=True)):
        scale = 0.05 if kind == "scales alike" else np.sqrt(2 / fan)
        if kind == "3x3 kernels":
            kernels = rng.standard_normal((size // 9, 3, 3), dtype=np.float32)
            drawn = (kernels + rng.standard_normal((size // 9, 1, 1), dtype=np.float32)) * np.float32(scale / 2**0.5)
            drawn = drawn[:, None]
        else:
            drawn = rng.standard_normal(size, dtype=np.float32) * np.float32(scale)
        layers[f"layer{index}.weight"] = drawn if kind.startswith("float") else values[np.searchsorted(borders, drawn)]
    return layers


def speed_row(kind: str, num_weights: int) -> list[str]:
    """Seconds and memory of encoding and decoding, in a separate process."""
    torch.set_num_threads(1)
    state = {name: torch.from_numpy(array) for name, array in draw_layers(num_weights, kind).items()}
    found, contents = [], []
    for run in (lambda: encode_state(state, {}, {}), lambda: load_state(contents[0])):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before, start = memory_peak(), time.process_time()
        contents.append(run())
        found += [f"{num_weights / (time.process_time() - start) / 1e6:.1f}"]
        found += [f"{(memory_peak() - before) * MEGABYTE / num_weights:.1f}"]
    if any(not torch.equal(contents[1][name], tensor) for name, tensor in state.items()):
        raise SystemExit("decoded weights differ")
    start = time.process_time()
    alone = unpack(contents[0], read_envelope(contents[0]), decode_with_torch)
    found.append(f"{num_weights / (time.process_time() - start) / 1e6:.1f}")
    names = [record.name for record in alone.packed.layout.records]
    for name, bits in zip(names, alone.elements, strict=True):
        if name in state and not torch.equal(bits.view(torch.float32), state[name].reshape(-1)):
            raise SystemExit("weights decoded by torch alone differ")
    bound = entropies([torch.cat([tensor.reshape(-1) for tensor in state.values()])])
    ratio = "" if kind.startswith("float") else f"{len(contents[0]) / bound:.3f}"
    return [kind, f"{8 * len(contents[0]) / num_weights:.3f}", ratio, *found]


def memory_peak() -> float:
    """Peak of resident memory in MB since the peak was last reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def table(title: str, head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """A table in Markdown, printed row by row."""
    lines = ["", f"### {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    print("\n".join(lines), flush=True)
    for row in rows:
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, metavar="FOLDER")
    parser.add_argument("--nncodec", metavar="PYTHON")
    parser.add_argument("--weights", type=int, default=25_000_000, help="of the table of speeds")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", metavar="KIND", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(speed_row(options.one, options.weights)))
        return
    lines = [f"{hardware('cpu')}; Python {sys.version.split()[0]}, numpy {np.__version__}; one thread"]
    print(lines[0])
    if options.networks:
        states = {depth: load_file(options.networks / f"resnet{depth}.safetensors") for depth in RESNETS}
        names = [
            "zip",
            *general_coders(),
            "nncodec",
            "pwfn",
            "whole file",
            "its float32, zipped",
            "whole file against version 1",
        ]
        head = ["network, values", "entropy + codebook", "entropies of layers", "version 1", *names]
        rows = (
            network_row(states[depth], f"ResNet-{depth}, {num_values}", num_values, options.nncodec)
            for depth in RESNETS for num_values in VALUES
        )  # fmt: skip
        lines += table("Clustered networks, bytes", head, rows)
        kinds = ("int4 per channel", "int8 per channel", "16 values per channel")
        rows = (grouped_row(states[20], kind) for kind in kinds)
        lines += table("Codebooks inside a tensor (ResNet-20), bytes", ["codebook", "file", "zip", "xz"], rows)
    head = ["weights", "bits per weight", "to the entropy", "encode, M/s", "bytes per weight", "decode, M/s", "bytes"]
    head.append("decode by torch alone, M/s")
    command = [sys.executable, __file__, "--weights", str(options.weights), "--one"]
    runs = (subprocess.run([*command, kind], check=True, capture_output=True, text=True).stdout for kind in KINDS)
    lines += table(f"Speed and memory, {options.weights:,} weights", head, map(json.loads, runs))
    lines += table("Loading, CPU seconds", ["what", "seconds"], load_rows())
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
