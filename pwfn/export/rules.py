"""What both decoders go by, with numpy and with torch alone: constants and checks. Takes nothing but Python."""

from __future__ import annotations

import zlib

PRECISION = 12
"""Frequencies sum to 2^12: at 14 bits the decoder's tables leave the processor's cache and save under 0.05 %."""
TOTAL = 1 << PRECISION
MAX_SYMBOLS = 256
"""Longest table; more values are coded in two digits."""
LOWEST = 1 << 16
"""Least state between symbols: one whose upper half is not zero."""
STEPS_AT_ONCE = 64
"""Symbols per lane that are looked up together: bounds the memory beyond input and output."""
LEVELS = tuple(code if code < 8 else (8 + code % 8) << (code // 8 - 1) for code in range(256))
"""Weight of each table byte: a float of 5 exponent and 3 mantissa bits. Its error of at most 6 % costs less than 0.002
bit per weight, and the bytes of a table repeat more than with a fourth mantissa bit, so that they deflate better."""
MAX_LEVEL = 119
"""Largest table byte in use, of weight 15 * 2^13: more than the rarest symbol of 2^12 needs."""
NO_WORDS = "the stream of symbols ends before the last tensor does"
NO_END = "the stream of symbols does not end where the last tensor does"
NO_STATES = "the lanes' states end too early"


def check_table(table: bytes) -> None:
    """Refuse a table that gives no frequencies.

    Raises:
        ValueError: every byte is zero or one is above MAX_LEVEL, or it is empty or longer than MAX_SYMBOLS.
    """
    if not 0 < len(table) <= MAX_SYMBOLS or not 0 < max(table) <= MAX_LEVEL:
        used = len(table) - table.count(0)
        raise ValueError(f"a table of {len(table)} entries, of which {used} are not zero")


def inflate(raw: bytes, size: int) -> bytearray:
    """Undo deflation to exactly so many bytes, and allocate no more than those.

    Raises:
        ValueError: the bytes are not deflated, or of another length.
    """
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(raw, size + 1)
    except zlib.error as error:
        raise ValueError(f"bytes that cannot be inflated ({error})") from error
    if len(found) != size or not inflater.eof or inflater.unused_data:
        raise ValueError("inflated bytes of another length")
    return bytearray(found)
