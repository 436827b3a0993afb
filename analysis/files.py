"""Files that are written whole or not at all."""

import tempfile
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file into a folder that there is; whoever reads it meanwhile finds the old one, or the new one."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", delete=False) as handle:
        part = Path(handle.name)
        try:
            handle.write(text)
            handle.close()
            part.chmod(0o644)
            part.replace(path)
        except BaseException:  # a full disk, say: nothing of it stays behind
            part.unlink(missing_ok=True)
            raise
