"""What a search selects, from its trials as `store.trials` has them, and what it says of its fields."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import coverage, schema


def selected(trials: pd.DataFrame) -> dict[str, Any] | None:
    """Return the trial with the lowest error on held-out training images, of those that ended; of equals the
    earlier. None where no trial ended."""
    ended = trials[(trials["state"] == coverage.DONE) & trials[schema.VAL_TOP1].notna()]
    if ended.empty:
        return None
    first = ended.sort_values([schema.VAL_TOP1, schema.TRIAL_NUMBER]).iloc[0]
    return {str(name): value for name, value in first.to_dict().items()}


def earlier_words(dropped: Sequence[str]) -> str:
    """Say which settings earlier selections had tested as well; nothing where there were none."""
    return f"Selected before, tested as well, and not compared here: {', '.join(dropped)}." if dropped else ""


def importance_words(importance: Mapping[str, float]) -> str:
    """Say how much of the variation each field explains; nothing where too few trials ended to tell."""
    if not importance:
        return ""
    shares = ", ".join(f"{path} {share:.0%}" for path, share in importance.items())
    return f"Importance, the share of the variation that a parameter explains by itself (fANOVA): {shares}."
