"""Links from a page into the repository become names of files in the site, where they would lead nowhere."""

import logging
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[(?P<words>[^\]]+)\]\((?P<target>\.\./[^)#:\s]+)\)")
WARNINGS = logging.getLogger("mkdocs.plugins.links")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """See MkDocs' event of this name. A link to a file that there is not is a warning."""
    docs = Path(config.docs_dir).resolve()

    def named(found: re.Match[str]) -> str:
        target = (Path(page.file.abs_src_path).parent / found["target"]).resolve()
        if target.is_relative_to(docs):
            return found[0]
        if not target.exists():
            WARNINGS.warning("%s links to %s, which does not exist", page.file.src_path, found["target"])
        return f"{found['words']} (`{target.relative_to(docs.parent)}`)"

    return LINK.sub(named, markdown)
