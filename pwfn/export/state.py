"""Tensors by name to a file's bytes, whatever network they belong to."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pwfn.errors import UserError
from pwfn.export.codec import Item, encode
from pwfn.export.contents import DTYPES, NAMES
from pwfn.export.layout import Role
from pwfn.export.metadata import ModelMetadata, metadata_from, metadata_to_json
from pwfn.export.packing import pack

RestDtype = Literal["float32", "float16", "bfloat16"]
COMPARED_BYTES = 1 << 21
"""Networks up to this size are compared with zip itself where they hardly shrink. In larger ones the codec compares
with deflation tensor by tensor, which is what zip does to them; `pwfn export` looks at the zip of any size."""
HARDLY = 0.5
"""Share of their bytes from which tensors hardly shrink; zip cannot beat less but for tensors that repeat whole runs,
which the codec deflates one by one."""


def encode_state(
    fixed: Mapping[str, Tensor],
    rest: Mapping[str, Tensor],
    metadata: ModelMetadata | Mapping[str, Any],
    *,
    rest_dtype: RestDtype = "float32",
    sigmas: Mapping[str, Tensor] | None = None,
    deflate_all: bool = False,
) -> bytes:
    """Write tensors as a file's bytes; each comes back to the bit.

    Args:
        fixed: the tensors that belong to the fixed set, whatever sharing they have.
        rest: all others.
        metadata: of `describe_network`; a mapping has the same fields.
        rest_dtype: of the float32 tensors among `rest`; the narrow ones round them.
        sigmas: of the posterior, by name of the fixed parameter, to keep the ensemble; None keeps the mean only.
        deflate_all: deflate every tensor as zip does, instead of looking for shared values.

    Raises:
        UserError: a tensor of a kind that a file cannot hold, or a value that `rest_dtype` cannot hold.
        ValueError: wrong metadata; names the field.
    """
    known = metadata if isinstance(metadata, ModelMetadata) else metadata_from(metadata)
    items = [_item(name, Role.FIXED, tensor) for name, tensor in fixed.items()]
    items += [_rest_item(name, tensor, rest_dtype) for name, tensor in rest.items()]
    items += [_item(name, Role.SIGMA, tensor) for name, tensor in (sigmas or {}).items()]
    text = metadata_to_json(known)
    content = pack(*encode(items, text, deflate_all=deflate_all))
    num_bytes = sum(item.bits.nbytes for item in items)
    if deflate_all or num_bytes > COMPARED_BYTES or len(content) < HARDLY * num_bytes:
        return content
    return min(content, pack(*encode(items, text, deflate_all=True)), key=len)


def zip_bytes(content: bytes) -> int:
    """Count the bytes of a zip with one file in it."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.safetensors", content)
    return len(target.getvalue())


def _item(name: str, role: Role, tensor: Tensor) -> Item:
    check_tensor(name, tensor)
    return Item(name, role, NAMES[tensor.dtype], tuple(tensor.shape), tensor_bits(tensor))


def check_tensor(name: str, tensor: Tensor) -> None:
    """Refuse what a file cannot hold.

    Raises:
        UserError: names the tensor and what is allowed.
    """
    what = None
    if tensor.layout != torch.strided:
        what = f"is {str(tensor.layout).removeprefix('torch.')}; only dense tensors can be written: call to_dense()"
    elif tensor.is_nested:
        what = "is nested; only plain tensors can be written: call to_padded_tensor()"
    elif tensor.device.type == "meta":
        what = "is on the meta device and has no values; load the weights first"
    elif tensor.is_quantized:
        what = "is quantised by torch; call int_repr() for its integers or dequantize() for its values"
    elif tensor.dtype not in NAMES:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES.values())
        what = f"is {tensor.dtype}; possible are {allowed}"
    if what is not None:
        raise UserError(f"tensor {name} {what}")


def _rest_item(name: str, tensor: Tensor, rest_dtype: RestDtype) -> Item:
    if rest_dtype == "float32" or tensor.dtype != torch.float32:
        return _item(name, Role.REST, tensor)
    check_tensor(name, tensor)
    narrow = tensor.to(getattr(torch, rest_dtype))
    if not torch.equal(narrow.isfinite(), tensor.isfinite()):
        raise UserError(
            f"tensor {name} has values beyond the range of torch.{rest_dtype}; use --rest-dtype bfloat16 or float32"
        )
    return _item(name, Role.NARROWED, narrow)


def tensor_bits(tensor: Tensor) -> Any:
    """Return a tensor's bit patterns as a flat numpy array, without a copy where it lies in order on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if not flat.numel():
        return np.zeros(0, f"<u{flat.element_size()}")
    return flat.view(torch.uint8).numpy().view(f"<u{flat.element_size()}")
