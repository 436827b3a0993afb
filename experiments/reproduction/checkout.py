"""A recorded commit, with the changes recorded with it, in a folder of its own."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from experiments.recording.patch import git
from experiments.recording.provenance import ROOT
from experiments.reproduction.record import RunRecord


@contextlib.contextmanager
def recorded_tree(record: RunRecord, console: Console) -> Iterator[Path]:
    """A git worktree with the code of a record, gone afterwards. Says which files the recorded changes touch.

    Raises:
        ValueError: the repository does not have the commit, or the changes cannot be made to it.
    """
    if git(ROOT, "cat-file", "-t", record.commit).strip() != "commit":
        raise ValueError(
            f"--checkout: commit {record.commit} of run {record.run_id} is not in the repository at {ROOT}: "
            "fetch it, or leave --checkout out to run with the code that is here"
        )
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        tree = Path(folder) / "tree"
        try:
            _run(ROOT, "worktree", "add", "--detach", "--force", str(tree), record.commit)
            console.print(f"  checked out {record.commit[:10]}")
            if record.patch is not None:
                patch = str(record.patch.resolve())
                files = [line.split("\t")[-1] for line in git(tree, "apply", "--numstat", patch).splitlines()]
                _run(tree, "apply", "--whitespace=nowarn", patch)
                console.print(f"  with the recorded changes to {', '.join(files)}", markup=False, soft_wrap=True)
            yield tree
        finally:
            git(ROOT, "worktree", "remove", "--force", str(tree))


def _run(folder: Path, *words: str) -> None:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"--checkout: git {words[0]} failed ({' '.join(done.stderr.split())})")
