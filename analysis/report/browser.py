"""The browser of the machine, if it has one: prints pages and photographs them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE = 120  # seconds
# Milliseconds of the page's own clock, which stands still while it waits for its server; pixels.
_DRAWN = ("--virtual-time-budget=60000", "--window-size=1600,1000")


def find() -> str | None:
    """Return the path of a browser that can print, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def run(address: str, flags: Sequence[str]) -> str | None:
    """Open a page without a window; what the browser printed, or None where none is there or it fails.

    Args:
        flags: what it is to do with the page, as Chromium names it.
    """
    browser = find()
    if browser is None:
        return None
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless=new",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            f"--user-data-dir={profile}",
            *flags,
            address,
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # a browser's sandbox refuses the superuser
        try:
            done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
    return done.stdout.decode()


def to_pdf(page: Path) -> Path | None:
    """Print a page beside itself, and return the PDF's path; None where no browser is there or it does not print."""
    pdf = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as name:
        printed = Path(name) / "page.pdf"
        run(page.resolve().as_uri(), ["--no-pdf-header-footer", f"--print-to-pdf={printed}"])
        if not printed.is_file():
            return None
        shutil.move(printed, pdf)
    return pdf


def content(address: str) -> str | None:
    """What a page consists of once its scripts have drawn what stands in the window; None as for `run`."""
    return run(address, [*_DRAWN, "--dump-dom"])


def photograph(address: str, picture: Path) -> bool:
    """Write a PNG of a page once its scripts have drawn it; whether there is one."""
    picture.unlink(missing_ok=True)
    run(address, [*_DRAWN, "--hide-scrollbars", f"--screenshot={picture.resolve()}"])
    return picture.is_file()
