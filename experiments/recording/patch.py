"""What the working tree has that its commit has not, as one patch: changed and new source files, and nothing else."""

import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# What can change a result.
SOURCES = frozenset(
    f".{ending}" for ending in ("py", "pyi", "toml", "cfg", "ini", "yaml", "yml", "sh", "c", "cc", "cpp", "cu", "h")
)
FILE_LIMIT = 256 * 2**10  # bytes of a file
PATCH_LIMIT = 4 * 2**20  # bytes of all files together
NAMED = 20  # files left out that are named; the rest is counted
# Whatever a user's own settings make of a diff, `git apply` must understand this one.
_DIFF = ("diff", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """Changes to source files.

    Args:
        text: what `git apply` makes of the commit the tree that ran; empty where nothing was changed.
        left_out: changed files that are not in it, each with the reason.
    """

    text: str = ""
    left_out: tuple[str, ...] = ()


def commit_of(root: Path) -> str | None:
    """The commit of a working tree; none where `root` is not the top of one, as in an installed package."""
    top = git(root, "rev-parse", "--show-toplevel").strip()
    if not top or Path(top).resolve() != root.resolve():
        return None
    return git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip() or None


def working_tree(root: Path, outside: Sequence[Path] = ()) -> Patch:
    """The changes of the working tree at `root` since its commit, tracked and untracked.

    Args:
        outside: folders that hold no source even where they lie in the tree: stores, results, data.
    """
    inside = [path.resolve() for path in outside if path.resolve().is_relative_to(root.resolve())]
    without = [f":(exclude,top,literal){path.relative_to(root.resolve())}" for path in inside if path != root.resolve()]
    scope = ("--", ":/", *without)
    tracked = git(root, "diff", "HEAD", "--name-only", "--no-renames", "-z", *scope).split("\0")
    untracked = git(root, "ls-files", "--others", "--exclude-standard", "-z", *scope).split("\0")
    changed = sorted({name for name in (*tracked, *untracked) if name})
    kept, left_out, total = [], [], 0
    for name in changed:
        path = root / name
        size = path.lstat().st_size if path.is_symlink() or path.exists() else 0
        if path.suffix not in SOURCES:
            left_out.append(f"{name} (no source)")
        elif size > FILE_LIMIT or total + size > PATCH_LIMIT:
            left_out.append(f"{name} ({size:,} bytes, too large)")
        else:
            kept.append(name)
            total += size
    if len(left_out) > NAMED:
        left_out = [*left_out[:NAMED], f"and {len(left_out) - NAMED} more"]
    return Patch(text=_diff(root, kept), left_out=tuple(left_out))


def _diff(root: Path, names: Sequence[str]) -> str:
    """One diff of all files. New files are announced to an index of our own: that of the user stays as it is."""
    if not names:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index", "GIT_LITERAL_PATHSPECS": "1"}
        git(root, "read-tree", "HEAD", environment=index)
        there = [name for name in names if (root / name).exists()]
        if there:
            git(root, "add", "--intent-to-add", "--force", "--", *there, environment=index)
        return git(root, *_DIFF, "HEAD", "--", *names, environment=index)


def git(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What a git command prints; nothing where it fails, or git is not there."""
    try:
        done = subprocess.run(
            ["git", "-c", "core.quotePath=false", *arguments],
            cwd=root,
            capture_output=True,
            timeout=60,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", **(environment or {})},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    # Whatever bytes a source file has come out as they went in.
    return done.stdout.decode("utf-8", "surrogateescape")
