"""What earlier builds made, and of which inputs: a file that nobody has touched is not made of the same inputs again.

It lies beside an embedded store, with what was read of that. It may be lost at any time, and never be wrong.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis import catalogue, inputs
from analysis.catalogue import Needs
from analysis.files import write_whole
from analysis.plan import Plan

FILE = "built.json"


class Memory:
    """What the builds by this code remember.

    Args:
        folder: where it is kept; None keeps nothing.
        forget: make everything again.
    """

    def __init__(self, folder: Path | None, *, forget: bool = False) -> None:
        self._code = None if folder is None else inputs.code()
        self._path = None if folder is None or self._code is None else folder / FILE
        kept = {} if self._path is None or forget else _read(self._path)
        self._kept = kept if kept.get("code") == self._code else {}
        self._kept = {"code": self._code, "needs": {}, "made": {}, **self._kept}

    def needs(self, plan: Plan) -> Needs:
        """What a plan's tables and figures are and read; remembered, because asking them imports what draws."""
        known, key = self._kept["needs"], inputs.of_plan(plan)
        if key not in known:
            known[key] = asdict(catalogue.needs(plan))
        return Needs(**{name: tuple(values) for name, values in known[key].items()})

    def made(self, stem: Path, made_of: str, make: Callable[[Path], Sequence[Path]]) -> tuple[list[Path], bool]:
        """The files of a table or a figure, and whether they were made now, since they were not made of this before.

        Args:
            made_of: digest of the inputs.
            make: writes them.
        """
        known = self._kept["made"].get(str(stem.absolute()), {"of": None})
        if known["of"] == made_of:
            files = {stem.parent / name: digest for name, digest in known["files"].items()}
            if all(inputs.of_file(path) == digest for path, digest in files.items()):
                return list(files), False
        paths = make(stem)
        files = {path.name: inputs.of_file(path) for path in paths}
        self._kept["made"][str(stem.absolute())] = {"of": made_of, "files": files}
        return list(paths), True

    def save(self) -> None:
        """Keep it for the next build, without files that are gone. Who cannot write keeps nothing."""
        if self._path is None:
            return
        made = {key: known for key, known in self._kept["made"].items() if Path(key).parent.is_dir()}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps({**self._kept, "made": made}, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept if isinstance(kept["needs"], dict) and isinstance(kept["made"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
