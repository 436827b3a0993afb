"""Prints a page with the browser of the machine, if it has one."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE = 120  # seconds


def find() -> str | None:
    """Return the path of a browser that can print, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def to_pdf(page: Path) -> Path | None:
    """Print a page beside itself, and return the PDF's path; None where no browser is there or it does not print."""
    browser = find()
    if browser is None:
        return None
    pdf = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as name:
        profile, printed = Path(name) / "profile", Path(name) / "page.pdf"
        command = [
            browser,
            "--headless=new",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
            f"--print-to-pdf={printed}",
            page.resolve().as_uri(),
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # a browser's sandbox refuses the superuser
        try:
            subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        if not printed.is_file():
            return None
        shutil.move(printed, pdf)
    return pdf
