"""The documentation builds without a warning, fetches nothing, can be searched, and its commands are commands."""

import csv
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dhm.backbones import ARCHITECTURES
from experiments import config
from experiments.run import JSON
from tests.pages import ROOT, commands

PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as they are read; a link that leads nowhere, or any other warning, is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built_and_fetches_nothing(site: Path) -> None:
    for page in PAGES:
        built = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        text = built.read_text()
        fetched = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)|<link[^>]+href="(https?:[^"]+)', text)
        assert not fetched, f"{built.name}: {fetched}"


def test_the_table_of_backbones_has_the_counts_of_the_released_networks(site: Path) -> None:
    words = re.sub(r"<[^>]+>", " ", (site / "backbones.html").read_text())
    with (ROOT / "tests/dhm/reference_parameter_counts.csv").open() as file:
        known = {row["architecture"]: row for row in csv.DictReader(file)}
    lines = " ".join(words.split())
    for name in ARCHITECTURES.names():
        assert re.search(rf"\b{name} (released code|ours, small)", lines), name
    for name, row in known.items():
        counts = f"{int(row['main_only']):,} {int(row['total_with_branches']):,}"
        assert re.search(rf"\b{name} released code [^|]*?{re.escape(counts)}", lines), (name, counts)


def test_docstrings_are_found_by_search(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    places = {entry["location"] for entry in index["docs"]}
    for name in ("reference/dhm.html#dhm.recipe.MimicSpec", "reference/experiments.html#experiments.grid.Grid"):
        assert name in places


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_are_commands(page: Path) -> None:
    for words in commands(page):
        if words[0] == "make":
            assert f"\n{words[1]}: " in (ROOT / "Makefile").read_text()
        elif words[0] == "python":
            assert importlib.util.find_spec(words[2]) is not None, words
            if words[2] == "experiments.run":
                config.read([word for word in words[3:] if word != JSON])
