"""Image files written byte by byte: kinds that Pillow reads but does not write."""

import io
import struct
import warnings
import zlib
from collections.abc import Sequence

from PIL import Image, ImageCms


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(
    color: int, depth: int, samples: Sequence[int], size: tuple[int, int], *more: bytes
) -> bytes:
    """A PNG of a colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    width, height = size
    each = len(samples) // height
    rows = b""
    for top in range(height):
        bits = "".join(f"{s:0{depth}b}" for s in samples[each * top : each * (top + 1)])
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    return start + b"".join(more) + body + chunk(b"IEND", b"")


def tiff(
    samples: bytes, size: tuple[int, int], bits: int, white: int, kind: int, order: str = "<"
) -> bytes:
    """A grey TIFF: `white` is 0 or 1 (black is zero); `kind` 1 unsigned, 2 signed, 3 floating."""
    width, height = size
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: white, 273: 0, 277: 1, 278: height}
    tags |= {279: len(samples), 339: kind}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, value in tags.items():
        out += struct.pack(f"{order}HHII", tag, 4, 1, value)
    return out + struct.pack(f"{order}I", 0) + samples


def profile(**primaries: tuple[float, float, float]) -> bytes:
    """sRGB's ICC profile with other primaries (rXYZ, gXYZ, bXYZ)."""
    raw = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(struct.unpack(">I", raw[128:132])[0]):
        tag, start, _ = struct.unpack(">4sII", raw[132 + 12 * i : 144 + 12 * i])
        if tag.decode() in primaries:
            fixed = [struct.pack(">i", round(v * 65536)) for v in primaries[tag.decode()]]
            raw[start + 8 : start + 20] = b"".join(fixed)
    return bytes(raw)


DISPLAY_P3 = profile(
    rXYZ=(0.51512, 0.2412, -0.00105),
    gXYZ=(0.29198, 0.69225, 0.04189),
    bXYZ=(0.1571, 0.06657, 0.78407),
)


def gray_profile(gamma: float) -> bytes:
    """An ICC profile of grey (version 2): Y = v^gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"g\0" + bytes(78)
    parts, data, at = {b"desc": text, b"wtpt": white, b"kTRC": curve}, b"", 128 + 4 + 12 * 3
    table = struct.pack(">I", len(parts))
    for tag, part in parts.items():
        part += bytes(-len(part) % 4)
        table += tag + struct.pack(">II", at + len(data), len(part))
        data += part
    head = struct.pack(
        ">I4sI4s4s4s", at + len(data), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ "
    )
    head += struct.pack(">6H4s4sI", 2026, 1, 1, 0, 0, 0, b"acsp", bytes(4), 0) + bytes(16)
    head += bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + table + data


MODES = {"SPIDER": "F", "MSP": "1", "XBM": "1"}
"""What some formats take instead of RGB."""


def encoded(kind: str) -> bytes | None:
    """A small image in a format, where Pillow can write it."""
    buffer = io.BytesIO()
    for mode in (MODES.get(kind, "RGB"), "RGBA", "L", "P"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                Image.new(mode, (64, 64)).save(buffer, kind)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return buffer.getvalue()
    return None


def huge(kind: str) -> bytes:
    """A small file of a format whose header says that the image is huge."""
    small = bytearray(encoded(kind) or b"")
    if kind == "PNG":
        head = chunk(b"IHDR", struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0))
        return bytes(small[:8]) + head + chunk(b"IDAT", zlib.compress(bytes(64)))
    if kind == "JPEG":
        at = small.index(b"\xff\xc0") + 5
        small[at : at + 4] = struct.pack(">2H", 65_000, 65_000)
    elif kind == "GIF":
        at = small.index(b",") + 5
        small[6:10] = small[at : at + 4] = struct.pack("<2H", 65_000, 65_000)
    elif kind == "BMP":
        small[18:26] = struct.pack("<2i", 60_000, 60_000)
    elif kind == "WEBP":
        at = small.index(b"VP8 ") + 14
        small[at : at + 4] = struct.pack("<2H", 16_383, 16_383)
    elif kind == "AVIF":
        at = small.index(b"ispe") + 8
        small[at : at + 8] = struct.pack(">2I", 16_000, 16_000)
    elif kind == "TIFF":
        return tiff(bytes(64), (60_000, 60_000), 8, 1, 1)
    elif kind == "PPM":
        return b"P6 60000 60000 255\n" + bytes(64)
    return bytes(small)
