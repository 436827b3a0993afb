"""Pages of the documentation as things to try: their code blocks, and their commands as a reader would give them."""

import dataclasses
import importlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block; `file` is the path that its first line names in a comment, if it does."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        named = re.match(r"# ([\w/.]+\.\w+)$", self.text.partition("\n")[0])
        return named.group(1) if named else None


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of a language, in order."""
    return [
        Block(found["language"], re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE))
        for found in _FENCE.finditer(page.read_text())
        if found["language"] == language
    ]


def commands(page: Path) -> list[list[str]]:
    """The words of every command of a page, in order."""
    lines = [line for block in blocks(page, "bash") for line in block.text.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def links(page: Path) -> Iterator[Path]:
    """The files that a page links to."""
    for target in _LINK.findall(page.read_text()):
        yield (page.parent / target).resolve()


def write_files(page: Path, folder: Path) -> list[Path]:
    """Do what a page says: write each block that names a file, into a folder. None of them is there before."""
    written = []
    for block in (*blocks(page, "python"), *blocks(page, "yaml")):
        if block.file is not None:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            assert not path.exists(), path
            path.write_text(block.text)
            written.append(path)
    return written


def call(words: list[str]) -> int:
    """Give a command of ours, `python -m MODULE ...`, in this process; its exit code."""
    assert words[:2] == ["python", "-m"], words
    try:
        return int(importlib.import_module(words[2]).main(words[3:]) or 0)
    except SystemExit as leaving:
        return int(leaving.code or 0)


def made_by(target: str) -> list[list[str]]:
    """The commands of ours that a target of the Makefile gives, once everything is set up."""
    # What was given to the make that runs these tests is not part of the page's command.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES")}
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    lines = [shlex.split(line) for line in done.stdout.replace("\\\n", " ").splitlines() if " -m " in line]
    return [["python", *words[1:]] for words in lines if words[2].partition(".")[0] in ("experiments", "analysis")]
