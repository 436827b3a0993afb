"""Command lines of the smaller commands: words, settings as `name=value`, and a few `--options`."""

import argparse
import contextlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from dhm.registry import unknown


def told(error: Exception) -> str:
    """An error of somebody's own code in a line: its type, its words, and where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{f'{type(error).__name__}: {error}'.splitlines()[0]} ({Path(last.filename).name}:{last.lineno})"


def tell_mistake(error: Exception | str) -> int:
    """Print what is wrong as one line; returns the exit code of a user's mistake."""
    with contextlib.suppress(OSError):  # nobody may be there to read it
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
    return 2


def megabytes(size: int) -> str:
    """A size for a person."""
    return f"{size / 1e6:,.1f} MB"


class CommandLine:
    """Reads a command line; a mistake in it is a ValueError.

    Args:
        module: that is run, as in `python -m MODULE`.
        words: what the bare words are called in help ("RUN_ID"), or nothing, where there are none.
        settings: defaults by name; none is a setting that may be left out.
        options: what each does, by name; all are off unless given.
    """

    def __init__(
        self, module: str, text: str, *, words: str, settings: dict[str, str | None], options: dict[str, str]
    ) -> None:
        usage = [f"python -m {module}", words, *(f"[{name}=...]" for name in settings)]
        usage += [f"[--{name}]" for name in options]
        self._parser = _Parser(
            usage=" ".join(filter(None, usage)),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
        for name, what in options.items():
            self._parser.add_argument(f"--{name}", action="store_true", help=what)
        self._words, self._settings, self._options = words, settings, options

    def read(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        """The bare words; and the values of settings and options by name. Prints help and leaves where it is asked to.

        Raises:
            ValueError: a word, a setting or an option that the command does not have.
        """
        found, extra = self._parser.parse_known_intermixed_args(list(arguments))
        if extra:
            raise unknown("option", extra[0], [f"--{name}" for name in self._options])
        values: dict[str, Any] = {**self._settings, **{name: getattr(found, name) for name in self._options}}
        words = []
        for word in found.words:
            name, equals, value = word.partition("=")
            if not equals:
                words.append(word)
            elif name not in self._settings:
                raise unknown("setting", name, self._settings)
            elif not value:
                raise ValueError(f"{name} has no value: give {name}=VALUE")
            else:
                values[name] = value
        if words and not self._words:
            raise unknown("word", words[0], [*(f"{name}=" for name in self._settings)])
        return words, values


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help shows how it is used)")
