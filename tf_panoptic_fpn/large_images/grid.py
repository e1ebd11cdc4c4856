"""Tiles that cover an image and overlap, and the part of the image that each one decides."""

import dataclasses
import functools
from collections.abc import Iterator

from tf_panoptic_fpn.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Tile:
    """One tile: its place in the grid, and what it sees of the image, in pixels."""

    row: int
    column: int
    top: int
    bottom: int
    left: int
    right: int


@dataclasses.dataclass(frozen=True)
class Side:
    """The tiles along one side of an image: as few as keep to the overlap, evenly spaced.

    Attributes:
        length, tile, overlap: int, pixels. Neighbours share `overlap` or more.
    """

    length: int
    tile: int
    overlap: int

    @functools.cached_property
    def starts(self) -> list[int]:
        """Where each tile starts."""
        rest = max(self.length - self.tile, 0)
        gaps = -(-rest // (self.tile - self.overlap))
        return [rest * gap // gaps for gap in range(gaps)] + [rest]

    @functools.cached_property
    def ends(self) -> list[int]:
        return [start + min(self.tile, self.length) for start in self.starts]

    @functools.cached_property
    def cuts(self) -> list[int]:
        """Tile i decides the pixels from `cuts[i]` to `cuts[i + 1]`: cuts halve the overlaps."""
        middles = [(a + b) // 2 for a, b in zip(self.ends[:-1], self.starts[1:], strict=True)]
        return [0, *middles, self.length]


class Grid:
    """The tiles of an image, row by row.

    Args:
        height, width: int, of the image.
        tile: int, the sides of a tile; an image that is smaller has one tile of its own size.
        overlap: int, what neighbours share, at least; by default an eighth of a tile.

    Raises:
        ConfigError: if the overlap is below 2, where nothing could be compared, or not below the
            tile.
    """

    def __init__(self, height: int, width: int, tile: int, overlap: int | None = None) -> None:
        overlap = checked_overlap(tile, overlap)
        self.rows = Side(height, tile, overlap)
        self.columns = Side(width, tile, overlap)

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def __iter__(self) -> Iterator[Tile]:
        for row, (top, bottom) in enumerate(zip(self.rows.starts, self.rows.ends, strict=True)):
            for column, (left, right) in enumerate(
                zip(self.columns.starts, self.columns.ends, strict=True)
            ):
                yield Tile(row, column, top, bottom, left, right)


def checked_overlap(tile: int, overlap: int | None) -> int:
    """Returns the overlap, by default an eighth of a tile.

    Raises:
        ConfigError: unless tiles of this size can overlap by so much.
    """
    overlap = tile // 8 if overlap is None else overlap
    if not 2 <= overlap < tile:
        raise ConfigError(
            f"The overlap must be 2 pixels or more, and less than the tile. Received: a tile of "
            f"{tile} and an overlap of {overlap}"
        )
    return overlap
