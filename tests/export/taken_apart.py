"""Files taken apart and put together again, to edit what the checksum covers; and damaged files."""

import zlib

from pwfn.export.container import envelop
from pwfn.export.layout import number, read_layout


def take_apart(content):
    """Return the layout, the numbers of lanes and words, and the bytes after the header."""
    body = content[8 + int.from_bytes(content[:8], "little") : -32]
    sizes, place = [], 1
    for _ in range(4):
        start = place
        while body[place] > 127:
            place += 1
        place += 1
        sizes.append(sum((byte & 127) << 7 * i for i, byte in enumerate(body[start:place])))
    header = body[place : place + sizes[0]]
    return read_layout(zlib.decompress(header)), sizes[2:], body[place + sizes[0] :]


def put_together(raw, sizes, rest, version=2):
    """Write a file with a true checksum around any header."""
    header = zlib.compress(raw, 9)
    numbers = b"".join(map(number, [len(header), len(raw), *sizes]))
    return envelop(bytes([version]) + numbers + header + rest)


def flipped(content):
    """Yield every file that differs from `content` in a single bit."""
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            yield bytes(damaged)
