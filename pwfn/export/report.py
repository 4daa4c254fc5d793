"""What a file really holds and takes, counted from its bytes; and the lines that say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from safetensors.torch import save
from torch import Tensor

from pwfn.codebook import Codebook, CodebookMetrics, measure_codebook
from pwfn.export.contents import contents_from
from pwfn.export.hardware import FLOAT_BITS, HardwareCost
from pwfn.export.state import zip_bytes


@dataclass(frozen=True)
class FileReport:
    """A file's contents in numbers."""

    metrics: CodebookMetrics
    """Over the fixed set as decoded from the file."""
    num_weights: int
    num_coded: int
    """Weights of the fixed set that are coded; the rest of it shares too few values and is stored as it is."""
    num_coded_values: int
    """Their distinct values."""
    num_negative_zeros: int
    """Weights that are -0.0: one value with 0.0 in every metric, but kept to the bit, so the file holds two zeros."""
    file_bytes: int
    codebook_bytes: int
    """Palettes, tables and contexts, deflated."""
    index_bytes: int
    stored_bytes: int
    """Layers of the fixed set that are stored as they are."""
    rest_bytes: int
    sigma_bytes: int | None
    """Sigmas stored as they are; coded ones are in the indices. None if the file keeps none."""
    float32_bytes: int
    """The same network as a float32 safetensors file."""
    zip_bytes: int
    """That file zipped."""

    @property
    def header_bytes(self) -> int:
        """Names, shapes, metadata and checksum."""
        named = self.codebook_bytes + self.index_bytes + self.stored_bytes + self.rest_bytes + (self.sigma_bytes or 0)
        return self.file_bytes - named

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight of the fixed set takes, with its sigma if that is kept; names and metadata left out."""
        layers = self.codebook_bytes + self.index_bytes + self.stored_bytes + (self.sigma_bytes or 0)
        return 8 * layers / max(self.num_weights, 1)


def measure_file(content: bytes) -> FileReport:
    """Decode a file and count.

    Raises:
        UserError: the file is not valid.
    """
    contents = contents_from(content)
    sizes = contents.measure()
    weights = _joined(contents.fixed.values())
    coded = _joined(contents.fixed[name] for name in contents.fixed if name in contents.coded)
    float32 = save({name: tensor.contiguous() for name, tensor in contents.state.items()})
    return FileReport(
        metrics=measure_codebook(Codebook.of(weights)),
        num_weights=weights.numel(),
        num_coded=coded.numel(),
        num_coded_values=len(Codebook.of(coded).values),
        num_negative_zeros=int(((weights == 0) & weights.signbit()).sum()),
        file_bytes=sizes.file,
        codebook_bytes=sizes.codebook,
        index_bytes=sizes.symbols,
        stored_bytes=sizes.stored,
        rest_bytes=sizes.rest,
        sigma_bytes=sizes.sigmas if contents.sigmas else None,
        float32_bytes=len(float32),
        zip_bytes=zip_bytes(float32),
    )


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    """All numbers of floating-point tensors, as float32, in one."""
    found = [tensor.reshape(-1).float() for tensor in tensors if tensor.is_floating_point()]
    return torch.cat(found) if found else torch.empty(0)


def describe_file(report: FileReport) -> list[tuple[str, str]]:
    """Lines for people: a label and what there is to say."""
    metrics = report.metrics
    lines = [
        (
            "values",
            f"{metrics.unique_values:,} ({metrics.unique_nonzero:,} not zero) over {report.num_weights:,} weights",
        ),
        ("entropy", f"{metrics.entropy_bits:.3f} bits per weight; without zeros {metrics.entropy_nonzero_bits:.3f}"),
        ("sparsity", f"{metrics.sparsity:.1%} zeros"),
        ("order", f"mean {metrics.mean_order:.2f}, at most {metrics.max_order} powers of two per value"),
        ("bytes", f"{report.file_bytes:,}: {_parts(report)}"),
        (
            "bits per weight",
            f"{report.bits_per_weight:.3f} in the file{'' if report.sigma_bytes is None else ', sigma included,'} "
            f"against {metrics.entropy_bits:.3f} of entropy",
        ),
        (
            "float32 file",
            f"{report.float32_bytes:,} bytes, {report.float32_bytes / report.file_bytes:.2f} times as many",
        ),
        ("its zip", f"{report.zip_bytes:,} bytes, {report.zip_bytes / report.file_bytes:.2f} times as many"),
    ]
    left_out = report.num_weights - report.num_coded
    if left_out:
        shared = f"; the other {report.num_coded:,} share {report.num_coded_values:,}" if report.num_coded else ""
        lines.append(("not coded", f"{left_out:,} weights share too few values: stored in full{shared}"))
    if report.num_negative_zeros:
        lines.append(("negative zeros", f"{report.num_negative_zeros:,} weights are -0.0, kept as a value beside 0.0"))
    return lines


def describe_hardware(cost: HardwareCost) -> list[tuple[str, str]]:
    """Lines for people on the costs in hardware."""
    total = max(cost.multiplications, 1)
    orders = ", ".join(f"order {order} {n / total:.1%}" for order, n in cost.multiplications_by_order.items())
    return [
        ("multiplications", f"{cost.multiplications:,} per image: {orders} (order 0: by zero)"),
        ("as shift-and-add", f"{cost.shifts / total:.2f} shifts and {cost.adds / total:.2f} adds per multiplication"),
        (
            "Huffman reads",
            f"{cost.huffman_bits:.3f} bits per weight, {cost.huffman_bits_read:.3f} per multiplication "
            f"({cost.huffman_bits_read / FLOAT_BITS:.1%} of float32)",
        ),
    ]


def format_lines(lines: Iterable[tuple[str, str]]) -> str:
    """Align labels and texts."""
    lines = list(lines)
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)


def _parts(report: FileReport) -> str:
    parts = {
        "indices": report.index_bytes,
        "codebook and tables": report.codebook_bytes,
        "layers not coded": report.stored_bytes,
        "sigmas not coded": report.sigma_bytes or 0,
        "untouched tensors": report.rest_bytes,
        "names and metadata": report.header_bytes,
    }
    return ", ".join(f"{name} {size:,}" for name, size in parts.items() if size)
