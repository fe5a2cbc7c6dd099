"""TIFF files of any bands, written by hand: one page, one strip of a plane, nothing compressed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def write_tiff(path: Path, bands: np.ndarray, *, planar: bool = False) -> Path:
    """Write ``(h, w, K)`` whole numbers or floats; planar: one band after the other."""
    height, width, count = bands.shape
    kind = {"u": 1, "i": 2, "f": 3}[bands.dtype.kind]
    pixels = (bands.transpose(2, 0, 1) if planar else bands).astype(bands.dtype.newbyteorder("<")).tobytes()
    planes, picture = count if planar else 1, count == 3 and kind == 1
    values = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [8 * bands.dtype.itemsize] * count), (259, 3, [1]),
        (262, 3, [2 if picture else 1]), (273, 4, [8 + k * (len(pixels) // planes) for k in range(planes)]),
        (277, 3, [count]),
        (278, 4, [height]), (279, 4, [len(pixels) // planes] * planes), (284, 3, [2 if planar else 1]),
        (338, 3, [0] * (0 if picture else count - 1)), (339, 3, [kind] * count),
    ]  # fmt: skip
    entries, more = b"", b""
    values = [entry for entry in values if entry[2]]
    start = 8 + len(pixels) + 2 + 12 * len(values) + 4
    for tag, form, numbers in values:
        packed = struct.pack("<" + ("H" if form == 3 else "I") * len(numbers), *numbers)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", start + len(more))
        more += packed if len(packed) > 4 else b""
        entries += struct.pack("<HHI", tag, form, len(numbers)) + place
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + pixels + struct.pack("<H", len(values)) + entries + b"\0\0\0\0" + more)
    return path
