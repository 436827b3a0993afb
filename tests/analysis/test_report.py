"""The page to mail: what is in it, that it needs nothing else, and how it stands in a real browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis import build
from analysis.report import browser, page, pieces
from analysis.tables import table as tables
from analysis.tables.table import Column, Table, markdown
from tests.analysis import synthetic

EVIL = "<script>document.title='owned'</script> & \"x\" | *y*"


class Reader(HTMLParser):
    """Gathers tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def out(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two complete grids, one with evil names, and one that refuses."""
    root = tmp_path_factory.mktemp("report")
    shutil.copy(uri.removeprefix("sqlite:///"), root / "mlflow.db")
    address = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=address)
    evil = {
        **synthetic.plan_record("methods", plan_id="evil", seeds=3),
        "title": EVIL,
        "question": EVIL,
        "reading": EVIL,
    }
    evil["variants"] = [{**item, "name": f"{item['name']} {EVIL}"} for item in evil["variants"]]
    evil["baseline"] = evil["variants"][0]["name"]
    synthetic.write_grid(client, {**evil, "benchmark": "other"})
    synthetic.write_plan(client, {**synthetic.plan_record("methods", plan_id="gaps"), "benchmark": "third"})
    folder = root / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser, "find", lambda: None)
        words = ["--store", address, "--out", str(folder), "--report", "--quiet"]
        for plan in ("branch_positions-1", "evil", "gaps"):
            words += ["--plan", plan]
        assert build.main(words) == 1, "the grid without cells is not built"
    return folder


@pytest.fixture(scope="module")
def text(out: Path) -> str:
    return (out / "report.html").read_text()


@pytest.fixture(scope="module")
def reader(text: str) -> Reader:
    return Reader(text)


def test_every_table_and_figure_is_in_the_page_whole(out: Path, reader: Reader) -> None:
    images = [image["src"] or "" for image in reader.of("img")]
    pngs = sorted(path for path in out.rglob("*.png"))
    assert sorted(images) == sorted(pieces.data_uri(png) for png in pngs) and len(pngs) == 4
    saved = {(link["download"], link["href"]) for link in reader.of("a") if "download" in link}
    for path in out.rglob("*.*"):
        if path.is_file() and path.stem != "report":
            assert (path.name, pieces.data_uri(path)) in saved
    cells = "|".join(reader.words)
    for row in (out / "digits/branch_positions/comparison.md").read_text().splitlines()[2:9]:
        assert re.sub(r" *\| *", "|", row).strip("|") in cells
    alts = " ".join(image["alt"] or "" for image in reader.of("img"))
    for name in ("Training curves of Branch positions on digits", "Positions of", "Methods of"):
        assert name in alts


def test_it_says_where_the_numbers_are_from_and_what_is_missing(reader: Reader) -> None:
    words = " ".join(" ".join(reader.words).split())
    assert "python -m experiments.run grid=branch_positions benchmark=digits seeds=5" in words
    assert synthetic.COMMIT in words and synthetic.CODE in words
    assert "digits/branch_positions: 35 of 35 cells done." in words
    assert "Not built: third/methods: 15 of 15 cells are absent" in words
    assert "No means and no verdicts before it is complete." in words
    assert "says nothing about CIFAR" not in words, "there are other benchmarks"


def test_it_needs_no_network_and_no_script(text: str, reader: Reader) -> None:
    assert not reader.of("script") and "@import" not in text
    for tag, attributes in reader.tags:
        value = attributes.get("src") or attributes.get("href") or "#"
        followed = ("https://",) if tag == "a" else ()  # where a reader may go, not what the page loads
        assert value.startswith(("data:", "#", *followed)), value
    assert not re.search(r"url\((?!data:)", text)


def test_names_from_outside_are_escaped(text: str) -> None:
    assert "<script>document" not in text
    assert "&lt;script&gt;document.title=&#39;owned&#39;&lt;/script&gt; &amp; &#34;x&#34;" in text
    assert " ".join(EVIL.split()) in " ".join(" ".join(Reader(text).words).split())


def test_it_can_be_found_one_s_way_in(reader: Reader) -> None:
    ids = {attributes["id"] for _, attributes in reader.tags if "id" in attributes}
    inside = [link["href"] or "" for link in reader.of("a") if (link["href"] or "").startswith("#")]
    assert len(inside) == 5 and {link[1:] for link in inside} <= ids
    assert len(reader.of("h1")) == 1 and len(reader.of("h2")) == 1 + 5
    for image in reader.of("img"):
        assert len(image["alt"] or "") > 60
    assert all(attributes.get("scope") in ("col", "row") for attributes in reader.of("th"))
    assert reader.of("html")[0]["lang"] == "en"


def test_a_table_reads_back_from_markdown_as_it_was_shown(out: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [EVIL, "back\\slash"], "b": ["−1.5", "–"]})
    columns = (Column("odd | *head*", lambda row: str(row["a"]), "l"), Column("b", lambda row: str(row["b"])))
    made = Table(name="odd", frame=frame, columns=columns, caption="A caption | with a bar.")
    heads, aligns, rows = pieces.table(markdown(made))
    assert heads == ("odd | *head*", "b") and aligns == ("l", "r")
    assert [list(row) for row in rows] == made.shown()
    assert tables.NONE in rows[1]


def test_the_same_records_give_the_same_page(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "find", lambda: None)
    pages = []
    for name in ("a", "b"):
        built = build.build(uri, tmp_path / name, ["methods-1"])
        (path,) = page.write(uri, tmp_path / name, built)
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]
    assert "says nothing about CIFAR" in " ".join(pages[0].decode().split())


@pytest.fixture(scope="module")
def chromium() -> str:
    found = browser.find()
    if found is None:
        pytest.skip(f"no browser to look at the page with: none of {', '.join(browser.NAMES)} is on the PATH")
    return found


def seen(chromium: str, page: Path, folder: Path, width: int, *, dark: bool) -> dict[str, float | str]:
    """Open a page in a frame of some width, in a real browser, and measure it there."""
    measure = """
      const root = frame.contentDocument, all = root.documentElement;
      const loaded = [...root.images].every(image => image.complete && image.naturalWidth > 0);
      const style = getComputedStyle.call(frame.contentWindow, root.body);
      const boxes = [...root.querySelectorAll('.scroll')];
      document.body.innerHTML = '<pre id=told>' + JSON.stringify({
        client: all.clientWidth, scroll: all.scrollWidth, loaded, title: root.title,
        ink: style.color, paper: style.backgroundColor,
        scrolling: boxes.filter(box => box.scrollWidth > box.clientWidth).length,
        letters: parseFloat(style.fontSize)}) + '</pre>';"""
    source = html.escape(page.read_text(), quote=True)
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        f'<iframe id="frame" style="border:0;width:{width}px;height:900px" srcdoc="{source}"></iframe>'
        f'<script>const frame = document.getElementById("frame"); frame.onload = () => {{{measure}}};</script>'
    )
    command = [
        chromium,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--virtual-time-budget=20000",
        "--dump-dom",
        wrapper.as_uri(),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    found = re.search(r'<pre id="told">(.*?)</pre>', shown, flags=re.DOTALL)
    assert found, shown[-2000:]
    told: dict[str, float | str] = json.loads(html.unescape(found[1]))
    return told


def lightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_it_stands_in_a_real_browser(chromium: str, out: Path, tmp_path: Path, width: int, dark: bool) -> None:
    told = seen(chromium, out / "report.html", tmp_path, width, dark=dark)
    assert told["loaded"] is True
    assert told["client"] <= width and told["scroll"] <= told["client"], "no sideways scrolling of the page"
    if width == 390:
        assert told["scrolling"] > 0, "wide tables scroll in their boxes"
    assert told["title"] == "Ablations: 3 plans"
    ink, paper = lightness(str(told["ink"])), lightness(str(told["paper"]))
    assert (ink > 0.8 and paper < 0.2) if dark else (ink < 0.2 and paper > 0.9)
    assert told["letters"] == 16


def test_a_browser_prints_it(chromium: str, out: Path) -> None:
    pdf = browser.to_pdf(out / "report.html")
    assert pdf == out / "report.pdf"
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF") and content.count(b"/Type /Page\n") > 1
    pdf.unlink()


def test_a_browser_that_fails_leaves_the_page_alone(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "find", lambda: shutil.which("false"))
    assert browser.to_pdf(out / "report.html") is None
    assert not (out / "report.pdf").exists() and (out / "report.html").is_file()


def test_a_sidecar_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(json.dumps({"files": ["odd.txt"]}))
    (tmp_path / "odd.txt").write_text("x")
    with pytest.raises(ValueError, match="is no sidecar of a table or a figure"):
        pieces.read(tmp_path / "odd.json")
