"""COCO's run-length encoded masks as arrays of run lengths."""

import numpy as np

_LONGEST = np.iinfo(np.uint16).max


def runs_of(rles):
    """Unpacks the compressed counts of COCO RLEs.

    Args:
        rles: list of dicts `{"size": [H, W], "counts": bytes}`.

    Returns:
        `(runs, num_runs)`: uint16 `[r]`, the run lengths of all masks one after the other, down the
        columns, background first; a run above 65535 is followed by a run of 0 and what is left of
        it. And int64 `[n]`, the number of runs of each mask.

    Reference: `rleFrString` of pycocotools: 5 bits a character from the lowest, bit 6 where more
    follow, the last with a sign; from the fourth on, a count is the difference from the last but
    one.
    """
    if not any(rle["counts"] for rle in rles):
        return np.zeros(0, np.uint16), np.zeros(len(rles), np.int64)
    lengths = np.array([len(rle["counts"]) for rle in rles])
    codes = np.frombuffer(b"".join(rle["counts"] for rle in rles), np.uint8).astype(np.int64) - 48
    is_last = (codes & 0x20) == 0
    starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes)))
    counts = np.add.reduceat((codes & 0x1F) << 5 * place, starts)
    negative = codes[is_last] & 0x10 != 0
    counts[negative] -= 1 << 5 * (place[is_last][negative] + 1)
    mask = np.repeat(np.arange(len(rles)), lengths)[is_last]
    num_counts = np.bincount(mask, minlength=len(rles))
    first = np.concatenate([[0], np.cumsum(num_counts)[:-1]])
    position = np.arange(len(counts)) - first[mask]
    _undo_differences(counts, position)
    return _split_long(counts, mask, len(rles))


def _undo_differences(counts, position):
    """Sums up, in place, the counts of each mask at odd positions, and at even ones from 2 on."""
    for chain in (position % 2 == 1, (position % 2 == 0) & (position > 0)):
        values = counts[chain]
        sums = np.cumsum(values)
        starts = np.flatnonzero(position[chain] <= 2)
        before = sums[starts] - values[starts]
        counts[chain] = sums - np.repeat(before, np.diff(starts, append=len(values)))


def _split_long(counts, mask, num_masks):
    pieces = 1 + 2 * (np.maximum(counts - 1, 0) // _LONGEST)
    runs = np.zeros(pieces.sum(), np.uint16)
    ends = np.cumsum(pieces)
    runs[ends - 1] = counts - pieces // 2 * _LONGEST
    for long in np.flatnonzero(pieces > 1):
        runs[ends[long] - pieces[long] : ends[long] - 1 : 2] = _LONGEST
    return runs, np.bincount(mask, weights=pieces, minlength=num_masks).astype(np.int64)
