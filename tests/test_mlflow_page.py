"""Who opens the link that a run prints sees the arms, in a real browser, without a click."""

import html
import re
from pathlib import Path

import pytest

from analysis.report import browser
from docs.images import screenshots
from tests.pages import call

pytestmark = pytest.mark.slow
ARMS = ("plain", "dsl", "dhm")
CHART = "svg-container"  # what holds a drawing of MLflow's charts


@pytest.mark.skipif(browser.find() is None, reason=f"none of {', '.join(browser.NAMES)} is on the PATH")
def test_the_link_shows_every_arm_and_its_charts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["grid=methods", "epochs=2", "seeds=2", "pool.gpus=none", "pool.cpu_slots=2"]
    assert call(["python", "-m", "experiments.run", *words, f"store={tmp_path}", f"results={tmp_path}"]) == 0
    (place,) = re.findall(r"http://127.0.0.1:5000(/#/experiments/\S+)", capsys.readouterr().out)
    with screenshots.served(tmp_path) as server:
        runs = browser.content(server + place)
        charts = browser.content(server + place + screenshots.CHARTS)
    assert runs is not None and charts is not None
    for page in (runs, charts):
        seen = html.unescape(re.sub(r"<[^>]+>", " ", page))
        assert "Group by: variant" in " ".join(seen.split())
        for arm in ARMS:
            assert re.search(rf"Group:\s*{arm}\s+2\s", seen), f"{arm} with its two seeds"
    assert "final/top1_error" in runs, "the error is a column"
    assert CHART not in runs and charts.count(CHART) > 1
