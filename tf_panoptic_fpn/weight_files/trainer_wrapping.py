"""What trainers put around weights: loop state beside them, parts before their names, averages."""

import collections
import re
from collections.abc import Callable, Iterable, Sequence

from tf_panoptic_fpn.errors import WeightsError

# Where trainers put weights. pycls has `model_state`, Caffe2's detectors `blobs`, DeepSpeed
# `module`, Composer `state`.
STATE_KEYS = (
    *("model", "state_dict", "model_state_dict", "model_state", "blobs"),
    *("module", "net", "network", "params", "state"),
)
DEEPEST = 3  # dicts above the one of the weights
# Parts that data parallelism, compilation, sharding and checkpointing put into names.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_AVERAGED_KEY = re.compile(r"(?:^|[_.])(?:ema|averaged?|swa|teacher)(?:[_.]|$)", re.IGNORECASE)
_AVERAGED_NAME = re.compile(
    r"(?:model\.)?(?:(?:ema|ema_model|model_ema|averaged_model)\.|ema_)(.+)"
)

Rules = Sequence[tuple[str, str | Callable]]


def find_state(tree: dict, is_weight: Callable[[object], bool]) -> tuple[dict, tuple[str, ...]]:
    """Finds the dict of weights in what a trainer saved.

    A moving average is taken only where there is nothing else.

    Args:
        tree: what the file holds.
        is_weight: tells an array of one axis or more; a single number may be a counter.

    Returns:
        The dict, and the keys that lead to it; none where it is `tree` itself.

    Raises:
        WeightsError: if several dicts might be the weights.
    """
    keys = _locate(tree, is_weight, DEEPEST)
    state = tree
    for key in keys or ():
        state = state[key]
    return state, keys or ()


def _locate(tree: dict, is_weight: Callable[[object], bool], depth: int) -> tuple[str, ...] | None:
    """Keys from a dict to the weights below it, or None."""
    nested = {k: v for k, v in tree.items() if isinstance(v, dict) and isinstance(k, str)}
    for key in STATE_KEYS if depth else ():
        if key in nested and (keys := _locate(nested[key], is_weight, depth - 1)) is not None:
            return (key, *keys)
    if any(is_weight(value) for value in tree.values()):
        return ()
    found = {}
    for key in nested if depth else ():
        if key.startswith("optim"):  # its averages have the names of the weights
            continue
        if (keys := _locate(nested[key], is_weight, depth - 1)) is not None:
            found[key] = (key, *keys)
    plain = [key for key in found if not is_averaged(key)] or list(found)[:1]
    if len(plain) > 1:
        raise WeightsError(
            f"holds weights under {', '.join(map(repr, plain))}; save the right ones by themselves"
        )
    return found[plain[0]] if plain else None


def is_averaged(key: object) -> bool:
    """Whether the key of a checkpoint names a moving average of the weights."""
    return isinstance(key, str) and bool(_AVERAGED_KEY.search(key))


def state_notes(tree: dict, keys: tuple[str, ...]) -> Iterable[str]:
    """Sentences for the report: which dict was read, and what stood beside it."""
    if not keys:
        return
    yield f"The weights are those of {'.'.join(keys)!r}."
    beside = [str(key) for key in tree if key != keys[0]]
    averages = [key for key in beside if is_averaged(key)]
    others = [key for key in beside if key not in averages and not key.startswith("__")]
    if is_averaged(keys[0]):
        yield "They are a moving average; the file holds no others."
    for key in averages:
        yield f"{key!r} holds a moving average of the weights, which is not read."
    if others:
        yield f"Beside them, and left alone: {', '.join(sorted(others))}."


def without_wrappers(name: str) -> str:
    """ "module.backbone._orig_mod.conv1.weight" -> "backbone.conv1.weight"."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def averaged_copies(names: Iterable[str]) -> set[str]:
    """Names of a moving average whose weights are there under their own names too.

    mmcv writes `ema_backbone_conv1_weight` beside `backbone.conv1.weight`, others
    `ema_model.backbone.conv1.weight` beside `model.backbone.conv1.weight`.
    """
    tails = {name: match[1] for name in names if (match := _AVERAGED_NAME.fullmatch(name))}
    if not tails:
        return set()
    own = set()
    for name in names:
        if name not in tails:
            own |= {_squeezed(name), _squeezed(name.partition(".")[2])}
    return {name for name, tail in tails.items() if _squeezed(tail) in own}


def _squeezed(name: str) -> str:
    return re.sub(r"[._]", "", name)


def find_prefix(names: Iterable[str], rules: Rules) -> str:
    """The parts before most names, such as "model.", without which a rule matches them, or "".

    Args:
        names: of a checkpoint.
        rules: (regular expression of whole names, replacement) pairs.
    """
    patterns = [re.compile(pattern) for pattern, _ in rules]
    counts: collections.Counter[str] = collections.Counter()
    for name in names:
        start = 0
        while not any(pattern.fullmatch(name, start) for pattern in patterns):
            start = name.find(".", start) + 1
            if not start:
                break
        else:
            counts[name[:start]] += 1
    prefix, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return prefix if 2 * count >= sum(counts.values()) else ""


def count_known(names: Iterable[str], rules: Rules) -> int:
    """How many names a rule matches, once `find_prefix` is left out."""
    prefix = find_prefix(names, rules)
    patterns = [re.compile(pattern) for pattern, _ in rules]
    return sum(
        any(pattern.fullmatch(name, len(prefix)) for pattern in patterns)
        for name in names
        if name.startswith(prefix)
    )
