"""What stands for the content of image files that are never all read into memory."""

import hashlib
import json
import re
import uuid
import warnings
from pathlib import Path

import torch

from dhm.data.cache import manifest
from dhm.data.folders import ImageFolders
from dhm.streams import stream

READ_LIMIT = 8 * 2**30  # bytes; a set above it is not read as a whole
SAMPLE_BYTES = 2**30  # of such a set


def fingerprint_of(images: ImageFolders, cache: Path | None) -> str:
    """`files-` and 16 hex digits over path, size and content of every image; or `sample-`, for large sets.

    Paths are those within a split: it makes no difference whether the test images lie in `test/` or in `val/`, nor
    where the data set does. Of a set above `READ_LIMIT` all paths and sizes count, and the content of files drawn
    from it once and for all, `SAMPLE_BYTES` together: a file that was not drawn may change its content, if it keeps
    its size, and the fingerprint stays. Its prefix says that.

    Args:
        cache: folder that keeps the result until a file's name, size or time changes, so that content is read once
            and not by every run; made when it is missing. None keeps nothing.
    """
    if cache is None:
        return _read(images)
    entry = cache / f"fingerprint-{manifest(images)}.txt"
    if entry.is_file() and re.fullmatch(r"(files|sample)-[0-9a-f]{16}", kept := entry.read_text()):
        return kept
    found = _read(images)
    unfinished = entry.with_name(f".writing-{uuid.uuid4().hex}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(found)
        unfinished.replace(entry)
    except OSError as error:
        warnings.warn(f"the fingerprint is not kept, every run will read the files again: {error}", stacklevel=2)
    return found


def _read(images: ImageFolders) -> str:
    files = images.files
    sizes = [(images.root / file).stat().st_size for file in files]
    names = [(split, file.partition("/")[2]) for split in ("train", "test") for file, _ in getattr(images, split)]
    digest = hashlib.sha256(json.dumps([images.classes, list(zip(names, sizes, strict=True))]).encode())
    whole = sum(sizes) <= READ_LIMIT
    for index in range(len(files)) if whole else _sample(sizes):
        with (images.root / files[index]).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{'files' if whole else 'sample'}-{digest.hexdigest()[:16]}"


def _sample(sizes: list[int]) -> list[int]:
    """Positions, in an order that is the same for ever, as many as `SAMPLE_BYTES` hold, and one at least."""
    order = torch.randperm(len(sizes), generator=stream(0, "fingerprint"))
    count = int((torch.tensor(sizes)[order].cumsum(0) <= SAMPLE_BYTES).sum())
    return order[: max(1, count)].tolist()
