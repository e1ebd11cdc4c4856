"""Downloads that resume and are checked."""

import hashlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.request

from tqdm import tqdm

from tf_panoptic_fpn.errors import WeightsError

CHUNK = 1 << 16
# detectron2 names its files after their MD5, PyTorch after their SHA-256.
HASHES = ("md5", "sha256")


def default_cache_dir() -> pathlib.Path:
    """`tf_panoptic_fpn` in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "tf_panoptic_fpn"


def download(url: str, folder: str | os.PathLike) -> pathlib.Path:
    """Downloads a file whose name ends in a part of its hash, once.

    An interrupted download stays in the folder as `NAME.part`, and the next call goes on from
    there.

    Args:
        url: address; its last part is the file's name, `NAME_HASH.EXT`, with 6 or more digits of
            the hash.
        folder: where to keep the file.

    Returns:
        Path of the file.

    Raises:
        WeightsError: naming the address, if it cannot be reached, ends early, or the file does not
            have the hash in its name.
    """
    path = pathlib.Path(folder) / url.rsplit("/", 1)[-1]
    match = re.search(r"[_-]([0-9a-f]{6,64})\.\w+$", path.name)
    if not match:
        raise WeightsError(f"{url}: the name must end in a part of the file's hash")
    if path.exists() and _has_hash(path, match[1]):
        return path
    partial = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, partial)
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{url}: the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(f"{url}: cannot be downloaded: {reason}; run again to resume") from None
    if not _has_hash(partial, match[1]):
        partial.unlink()
        raise WeightsError(f"{url}: the file does not have the hash {match[1]} of its name")
    partial.replace(path)
    return path


def _fetch(url: str, partial: pathlib.Path) -> None:
    """Appends to the partial file until the server has no more."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left; the hash tells whether that is right
            return
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        start = start if resumed else 0
        total = start + int(length) if length else None
        progress = tqdm(
            desc=partial.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None
        )
        with open(partial, "ab" if resumed else "wb") as file, progress:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
    received = partial.stat().st_size
    if total is not None and received < total:
        raise ConnectionError(f"it ended after {received} of {total} bytes")


def _has_hash(path: pathlib.Path, prefix: str) -> bool:
    for name in HASHES:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, name).hexdigest().startswith(prefix):
                return True
    return False
