"""Decoded images, kept on disk: every run is a process of its own and would decode them again."""

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from dhm.data.raw import RawData
from dhm.recipe import DataSpec

FORMAT = 1  # raise it when decoding changes
TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


class Source(Protocol):
    """Files that were found and can be read."""

    @property
    def layout(self) -> str:
        """How the files are laid out."""

    @property
    def root(self) -> Path:
        """The folder that `files` lie in."""

    @property
    def files(self) -> Sequence[str]:
        """Every file that `read` reads, beneath `root`."""

    def read(self, spec: DataSpec) -> RawData:
        """Decode all files at the size that the recipe asks for."""


def read_cached(source: Source, spec: DataSpec, cache: Path) -> RawData:
    """`source.read(spec)`, kept in `cache` as one file and mapped from there the next time.

    A change of a file's name, size or time makes another entry. An entry that cannot be read is built again.
    One that cannot be written costs a warning. Of processes that build one at once, the last one's stays.
    """
    try:
        entry = cache / f"{source.layout}-{manifest(source, spec.image_size, spec.resize)}.pt"
    except FileNotFoundError:
        return source.read(spec)  # which says what is missing
    try:
        return _read(entry)
    except Exception:  # missing or damaged, in whichever way zip, pickle and torch report it
        raw = source.read(spec)
    try:
        _write(raw, entry)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        warnings.warn(f"decoded images are not kept, every run will decode again: {error}", stacklevel=2)
    return raw


def manifest(source: Source, *how: int) -> str:
    """Hash of what determines an entry: the files, and how they are looked at.

    The time of the last change to the inode is part of it: archives restore modification times, and files
    without compression have equal sizes, so that two versions of a set may agree in both.
    """
    root = source.root.resolve()
    files = []
    for file in source.files:
        stat = os.stat(f"{root}/{file}")  # noqa: PTH116  (a Path for each file takes four times as long)
        files.append((file, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    what = [FORMAT, source.layout, str(root), *how, files]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]


def _read(entry: Path) -> RawData:
    content = torch.load(entry, weights_only=True, mmap=True)
    raw = RawData(**{name: content[name] for name in TENSORS}, classes=tuple(content["classes"]))
    # in the place where the cached property keeps its value: hashing again would read every page
    raw.__dict__["fingerprint"] = content["fingerprint"]
    return raw


def _write(raw: RawData, entry: Path) -> None:
    content = {
        **{name: getattr(raw, name) for name in TENSORS},
        "classes": list(raw.classes),
        "fingerprint": raw.fingerprint,
    }
    entry.parent.mkdir(parents=True, exist_ok=True)
    unfinished = entry.with_name(f".writing-{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())  # a rename that outlives a power cut must not point at empty pages
        unfinished.replace(entry)
    finally:
        unfinished.unlink(missing_ok=True)
