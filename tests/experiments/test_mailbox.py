"""Word between machines through a folder that is away at times."""

import errno
import pickle
from pathlib import Path

import pytest

from experiments.pools.parts import mailbox
from experiments.pools.parts.mailbox import Mailbox, Over


def test_words_that_were_read_before_the_folder_went_away_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Mailbox(tmp_path)
    box.prepare()
    for name in ("a", "b"):
        box.post(name, Over(outcome=name))
    reads = []

    def read(path: Path) -> object:
        reads.append(path)
        if len(reads) == 2:
            raise OSError(errno.ESTALE, "stale file handle")
        return pickle.loads(path.read_bytes())

    monkeypatch.setattr(mailbox, "_read", read)
    assert [name for name, _ in box.take()] == ["a"]
    assert [name for name, _ in box.take()] == ["b"], "and the others when it is back"
    assert box.take() == [], "each once"
