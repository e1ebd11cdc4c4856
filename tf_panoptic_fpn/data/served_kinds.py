"""The files that a server takes, by how they begin, and what it says of others."""

# Their first bytes; None is any byte.
KINDS: dict[str, list[int | None]] = {
    "JPEG": [*b"\xff\xd8\xff"],
    "PNG": [*b"\x89PNG\r\n\x1a\n"],
    "WebP": [*b"RIFF", None, None, None, None, *b"WEBP"],
    "GIF": [*b"GIF8"],
    "BMP": [*b"BM"],
    "TIFF": [*b"II*\0"],
    "big-endian TIFF": [*b"MM\0*"],
}
SERVED = 2  # of these, the first ones
HEAD = 24  # bytes, as far as the size of a PNG
EMPTY = "the image is empty"
DAMAGED = "the image cannot be decoded"
TOO_LARGE = "the image has {} pixels; at most {} are served (serve.max_pixels)"


def not_served(kind: str) -> str:
    """What is said of a file of a kind that is known and not served."""
    return f"a {kind} file is not served; send a JPEG or PNG"


def kind_of(data: bytes) -> str | None:
    """The first kind that a file begins as, or None."""
    for kind, begin in KINDS.items():
        pairs = zip(data, begin, strict=False)
        if len(data) >= len(begin) and all(known in (None, byte) for byte, known in pairs):
            return kind
    return None
