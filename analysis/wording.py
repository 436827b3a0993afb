"""How tables and figures say factors and their levels."""

import re


def say(factor: str, value: object) -> str:
    """Return a factor and its level as a reader says them."""
    shown = level(value)
    if factor in ("method", "arch"):
        return shown
    if factor == "positions":
        return f"branches at {shown}"
    words = {"mimic.alpha": "alpha =", "mimic.temperature": "T ="}
    return f"{words.get(factor, re.sub('[_.]', ' ', factor))} {shown.replace('_', ' ')}"


def level(value: object) -> str:
    """Return a factor's level as a reader says it."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
