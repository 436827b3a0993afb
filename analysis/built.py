"""What a build made."""

from dataclasses import dataclass
from pathlib import Path

from analysis.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Built:
    """What came of one plan: its files, and for what was not built the reason and the remedy."""

    plan: Plan
    paths: tuple[Path, ...]
    kept: int  # of the files: made before, of what they would be made of now
    refusals: tuple[str, ...]
    coverage: str  # how far the plan has come, in a sentence

    def __str__(self) -> str:
        """A few lines: how far the plan has come, and its files."""
        told = [self.coverage]
        by_stem: dict[Path, list[str]] = {}
        for path in self.paths:
            by_stem.setdefault(path.with_suffix(""), []).append(path.suffix)
        told += [f"  {stem}{{{','.join(suffixes)}}}" for stem, suffixes in by_stem.items()]
        if self.kept:
            which = "all of them" if self.kept == len(self.paths) else f"{self.kept} of {len(self.paths)} files"
            told.append(
                f"  {which} as they were: nothing has changed of what they are made of (--all makes them again)"
            )
        return "\n".join(told)
