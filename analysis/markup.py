"""Words from outside in Markdown: they stay words. Standard library only, for the training process."""

import re

_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def prose(text: str) -> str:
    """Return text in which no HTML begins and no link or image is made; emphasis and lists stay."""
    return _TAG.sub(r"\\<", text).replace("](", r"]\(").replace("][", r"]\[")


def code(text: str) -> str:
    """Return text for a span of code, in backticks."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"
