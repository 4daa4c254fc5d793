"""Measures the export's codec at 25 million weights, against gzip, zstandard and the entropy, in one run.

    python tests/benchmarks/export.py [--weights 25000000] [--out table.md]

Weights are drawn from real clustered distributions: normal per layer, of the layer's own scale, rounded to sums of up
to two powers of two (the form of PWFN's values), in layers of ResNet-50's sizes; and the same with every scale alike,
so that no layer gains from a table of its own. Each coder runs in a process of its own, which reports its peak memory.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from pwfn.codebook import entropy_bits

CODERS = (
    "pwfn",
    "gzip -6 of float32",
    "gzip -6 of uint8",
    "zstd -3 of float32",
    "zstd -19 of uint8",
)
KINDS = ("scales differ", "scales alike", "float (not clustered)")


def draw_layers(num_weights: int, kind: str) -> dict[str, np.ndarray]:
    """Layers of clustered weights, He-scaled by fan-in."""
    rng = np.random.default_rng(0)
    powers = 2.0 ** np.arange(-7, 1)
    sums = {sum(pair) for pair in combinations_with_replacement([0.0, *powers], 2)}
    values = np.array(sorted(sums | {-value for value in sums}), np.float32) + np.float32(0)
    borders = (values[1:] + values[:-1]) / 2
    fans = rng.choice([64, 256, 576, 1152, 2304, 4608], 53)
    sizes = rng.multinomial(num_weights, fans / fans.sum())
    layers = {}
    for index, (fan, size) in enumerate(zip(fans, sizes, strict=True)):
        scale = np.sqrt(2 / fan) if kind == "scales differ" else 0.05
        drawn = rng.standard_normal(size, dtype=np.float32) * np.float32(scale)
        layers[f"layer{index}.weight"] = drawn if kind.startswith("float") else values[np.searchsorted(borders, drawn)]
    return layers


def code_with_pwfn(layers: dict[str, np.ndarray]) -> tuple[int, float, float]:
    """Bytes, and seconds to encode and to decode."""
    from pwfn.export.codec import decode, encode

    start = time.perf_counter()
    coded = encode(layers)
    middle = time.perf_counter()
    decoded = decode(coded, {name: layer.shape for name, layer in layers.items()})
    end = time.perf_counter()
    if any(decoded[name].tobytes() != layers[name].tobytes() for name in decoded):
        raise SystemExit("decoded weights differ")
    left_out = sum(layer.nbytes for name, layer in layers.items() if name not in decoded)
    return coded.num_bytes + left_out, middle - start, end - middle


def code_with_bytes(
    layers: dict[str, np.ndarray],
    compress: Callable[[bytes], bytes],
    decompress: Callable[[bytes], bytes],
    narrow: bool,
) -> tuple[int, float, float]:
    """The same for a general compressor, on float32 or on codebook positions of one byte."""
    weights = np.concatenate(list(layers.values()))
    start = time.perf_counter()
    if narrow:
        values, positions = np.unique(weights, return_inverse=True)
        content = positions.astype(np.uint8).tobytes()
    else:
        content = weights.tobytes()
    packed = compress(content)
    middle = time.perf_counter()
    unpacked = decompress(packed)
    if narrow:
        values[np.frombuffer(unpacked, np.uint8)]
    return len(packed) + (values.nbytes if narrow else 0), middle - start, time.perf_counter() - middle


def run_one(coder: str, layers: dict[str, np.ndarray]) -> tuple[int, float, float]:
    """Run one coder."""
    if coder == "pwfn":
        return code_with_pwfn(layers)
    tool, level, narrow = coder.split()[0], int(coder.split()[1][1:]), coder.endswith("uint8")
    if tool == "gzip":
        return code_with_bytes(layers, lambda content: gzip.compress(content, level), gzip.decompress, narrow)
    import zstandard

    compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
    return code_with_bytes(layers, compressor.compress, decompressor.decompress, narrow)


def measure(coder: str, kind: str, num_weights: int) -> str:
    """One row of the table: bits per weight, seconds, and peak memory beyond the weights themselves."""
    if coder == "pwfn":
        import pwfn.export.codec  # noqa: F401  (its libraries are not the coder's memory)
    layers = draw_layers(num_weights, kind)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of drawing
    before = memory_peak()
    num_bytes, encode_seconds, decode_seconds = run_one(coder, layers)
    extra = memory_peak() - before
    bits = 8 * num_bytes / num_weights
    over = "" if kind.startswith("float") else f"{bits / bound(layers):.4f}"
    return (
        f"| {kind} | {coder} | {bits:.4f} | {over} | 1 : {32 / bits:.2f} | "
        f"{encode_seconds:.2f} | {decode_seconds:.2f} | {extra:,.0f} |"
    )


def memory_peak() -> float:
    """Peak resident memory in MB since it was last forgotten (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def bound(layers: dict[str, np.ndarray]) -> float:
    """Entropy of the values over all weights, in bits per weight."""
    counts: dict[float, int] = {}
    for layer in layers.values():
        for value, count in zip(*np.unique(layer, return_counts=True), strict=True):
            counts[value] = counts.get(value, 0) + int(count)
    return entropy_bits(np.array(list(counts.values())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=25_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("CODER", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure(*options.one, options.weights))
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("constriction", "numpy", "zstandard"))
    lines = [
        f"{options.weights:,} weights; {platform.machine()}, {os.cpu_count()} cores, {platform.system()}; "
        f"Python {platform.python_version()}, {packages}; one thread",
        "",
        "| weights | coder | bits per weight | to the entropy | to float32 | encode s | decode s | extra MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for kind in KINDS:
        for coder in CODERS:
            if kind.startswith("float") and "uint8" in coder:
                continue
            command = [sys.executable, __file__, "--weights", str(options.weights), "--one", coder, kind]
            lines.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
