"""What a search selects, from its trials as `store.trials` has them."""

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
