import json
from pathlib import Path
from typing import Any

from benchmarks.page import PAGE, RESULTS, page
from tests.pages import ROOT


def test_the_page_is_what_the_measurements_wrote() -> None:
    assert (ROOT / PAGE).read_text() == page(ROOT / RESULTS), "python -m benchmarks.page writes it again"


def test_a_figure_stands_with_its_command_its_machine_its_load_and_its_day(tmp_path: Path) -> None:
    assert "Not measured yet: `python -m benchmarks.data`" in page(tmp_path)
    written: dict[str, Any] = {
        "command": "python -m benchmarks.data --rounds 5",
        "machine": {"processor": "Some CPU", "cores": 2, "python": "3.11", "load": 0.25, "date": "2026-01-02"},
        "arms": {
            "released way": {"images_per_s": 5000.0, "ratio": 1.0},
            "ours": {"images_per_s": 91234.5, "ratio": 18.25},
        },
    }
    (tmp_path / "data.json").write_text(json.dumps(written))
    made = page(tmp_path)
    assert "| ours | 91,234 | 18.2 |" in made
    told = "`python -m benchmarks.data --rounds 5`: Some CPU, 2 cores, Python 3.11, load before it 0.25, 2026-01-02."
    assert told in made
    assert "No GPU was at hand" in made
