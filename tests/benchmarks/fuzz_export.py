"""Fuzzes the reader of exported files under atheris: `python tests/benchmarks/fuzz_export.py [--seconds N]`.

atheris (`pip install atheris`, Linux, Python 3.11 and 3.12) mutates files of both versions, guided by the branches that
the reader takes. Of a file of version 2 it mutates the header inflated, and every mutant gets a true checksum, since
anything else ends at the first check. An exception that is not a `UserError`, more than 256 MB or ten seconds for one
file is a finding. Without atheris it says so and ends.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "export")]

LIMITS = ["-rss_limit_mb=2048", "-malloc_limit_mb=256", "-timeout=10"]


def seeds() -> list[bytes]:
    """Small files with every way of coding, version 1's first, each behind a byte that says how it is put together."""
    from taken_apart import take_apart

    from pwfn.export import encode_state
    from pwfn.export.layout import write_layout

    rng = torch.Generator().manual_seed(0)
    values = torch.tensor([-0.5, 0.0, 0.25, 0.75])
    fixed = {
        "kernels": values[torch.randint(4, (16, 3, 3, 3), generator=rng)],
        "lines": values[torch.randint(4, (40, 40), generator=rng) * (torch.arange(40) % 2)[:, None]],
        "scaled": torch.randint(-8, 8, (24, 12), generator=rng) * torch.rand(24, 1, generator=rng),
        "grouped": torch.randn(4, 1, generator=rng).expand(4, 200) * values[torch.randint(4, (4, 200), generator=rng)],
        "wide": torch.arange(600).repeat(3).float(),
        "floats": torch.randn(900, generator=rng),
    }
    found = [b"\0" + (ROOT / "tests/export/version1/small.safetensors").read_bytes()[:-32]]
    for chosen in ({}, *({name: tensor} for name, tensor in fixed.items())):
        content = encode_state(chosen, {"steps": torch.tensor(3)}, {"class_names": ["a", "b"]})
        layout, (lanes, words), rest = take_apart(content)
        raw = write_layout(layout)
        sizes = b"".join(size.to_bytes(4, "little") for size in (lanes, words, len(raw)))
        found.append(b"\1" + sizes + raw + rest)
    return found


def read(data: bytes) -> None:
    """Put a file together and decode it; only our own error may come out."""
    from taken_apart import put_together

    from pwfn.errors import UserError
    from pwfn.export.contents import contents_from

    if data[:1] == b"\1" and len(data) > 13:
        lanes, words, length = (int.from_bytes(data[place : place + 4], "little") for place in (1, 5, 9))
        content = put_together(data[13 : 13 + length], [lanes, words], data[13 + length :])
    else:
        content = data[1:] + hashlib.sha256(data[1:]).digest()
    try:
        contents_from(content)
    except UserError:
        return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="0 only reads the files to start from")
    options = parser.parse_args()
    found = seeds()
    for seed in found:
        read(seed)
    print(f"{len(found)} files to start from are read")
    if not options.seconds:
        return
    if not find_spec("atheris"):
        print("skipped: atheris is not installed (pip install atheris)")
        return
    import atheris

    with atheris.instrument_imports(include=["pwfn.export"]):
        for name in [name for name in sys.modules if name.startswith("pwfn.export")]:
            del sys.modules[name]
        import pwfn.export.contents  # noqa: F401
    with tempfile.TemporaryDirectory() as folder:
        for index, seed in enumerate(found):
            Path(folder, str(index)).write_bytes(seed)
        run = [sys.argv[0], folder, f"-max_total_time={options.seconds}", "-print_final_stats=1", "-max_len=4000"]
        atheris.Setup([*run, *LIMITS], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
