"""Checkpoints: written whole or not at all, known to be undamaged, resumed to the bit.

A file is a magic word, the SHA-256 of what follows, and what `torch.save` wrote. The one before is kept until the next
is written, so that a damaged file costs one interval and not the run. Every random stream restarts at each epoch from
the seed and the epoch (`dhm.streams`), so those two are all the random state that a checkpoint needs to hold.
"""

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

MAGIC = b"DHM checkpoint 1\n"
DIGEST_SIZE = hashlib.sha256().digest_size


class DamagedError(ValueError):
    """A checkpoint that was cut short or changed since it was written."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state atomically: a reader finds the old file or the new one, also after a crash of the machine.

    The file that stood there is kept as `previous(path)`.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _part(path)
    try:
        with temporary.open("wb") as file:
            file.write(MAGIC)
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(previous(path))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one is kept."""
    return path.with_name(f"{path.name}.previous")


def _part(path: Path) -> Path:
    """What is being written; a run has one process that writes its checkpoint."""
    return path.with_name(f".{path.name}.part")


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a state. Loading runs no code from the file.

    Raises:
        DamagedError: the file is cut short, changed, or no checkpoint.
        FileNotFoundError: there is none.
    """
    content = path.read_bytes()
    head = len(MAGIC) + DIGEST_SIZE
    payload = content[head:]
    if not content.startswith(MAGIC) or hashlib.sha256(payload).digest() != content[len(MAGIC) : head]:
        raise DamagedError(f"{path} is damaged: its checksum does not hold")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise DamagedError(f"{path} holds what no checkpoint holds: {error}") from error
    return state


def load_newest(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any] | None, list[str]]:
    """The newest undamaged state, or none; and what was found wrong on the way, a sentence each."""
    problems: list[str] = []
    for candidate in (path, previous(path)):
        try:
            return load(candidate, device), problems
        except FileNotFoundError:
            continue
        except DamagedError as error:
            problems.append(str(error))
    return None, problems


def remove(path: Path) -> None:
    """Delete a checkpoint, the one before it, and what a process that was killed was writing."""
    for candidate in (path, previous(path), _part(path)):
        candidate.unlink(missing_ok=True)
