"""Commands, grid files, checkpoints and stores that are broken in every way that hypothesis thinks of.

Each must end in an exit code and, where that is 2, in one line of error; nothing may hurt the store.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st

from analysis import build
from dhm import checkpoint, evaluate
from experiments import clean, costs, reproduce, status
from experiments.grid import GRIDS
from experiments.run import main as run

GRID = {
    "question": "Does the learning rate matter?",
    "factors": {"method": ["plain", "dhm"], "optim.lr": [0.05, 0.1]},
    "baseline": {"method": "plain"},
    "exclude": [{"method": "dhm", "optim.lr": 0.05}],
    "base": {"epochs": 4},
    "seeds": 2,
    "figures": ["training_curves"],
}


@dataclasses.dataclass
class Ground:
    """A store with results, which nothing may hurt, and a folder to break things in."""

    store: Path
    folder: Path

    def digest(self) -> str:
        """Of everything in the store, bit by bit, but what a reader keeps for the next."""
        whole = hashlib.sha256()
        kept = {self.store / "cache" / "analysis", self.store / costs.FILE}
        for path in sorted(path for path in self.store.rglob("*") if not kept & {path, *path.parents}):
            whole.update(str(path).encode())
            whole.update(path.read_bytes() if path.is_file() else b"")
        return whole.hexdigest()


def checked(command: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """The exit code of a command that may fail, but neither with a traceback nor with many words."""
    out, err = io.StringIO(), io.StringIO()
    grids = dict(GRIDS._values)
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command(list(words))
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        GRIDS._values.clear()
        GRIDS._values.update(grids)
        logging.disable(logging.NOTSET)
    said = err.getvalue()
    assert code in (0, 1, 2), (words, code)
    assert "Traceback" not in said + out.getvalue(), (words, said)
    if code == 2:
        lines = said.strip("\n").split("\n")
        assert len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 3000, (words, said)
    return code


# --- Settings ----------------------------------------------------------------------------------------------

NAMES = [
    "arch", "epochs", "dropout", "precision", "tf32", "terms", "branches", "mimic", "replicas", "fork_scaling",
    "optim.lr", "optim.momentum", "optim.milestones", "optim.batch_size", "optim.schedule", "optim.warmup_epochs",
    "optim.nesterov", "optim", "data", "data.pad", "data.train_size", "data.val_fraction", "data.label_noise",
    "data.augment", "data.image_size", "data.resize", "data.mean", "data.std", "data.root", "data.flip", "data.decoder",
    "mimic.alpha", "mimic.temperature", "mimic.pairs", "mimic.listed", "mimic.smoothing", "mimic.alpha_warmup",
    "seeds", "recipe", "retry", "benchmark", "grid", "factors", "factors.method", "factors.positions",
    "factors.arch", "factors.optim.lr", "factors.mimic.alpha", "factors.branch_depth", "factors.fork_probability",
    "pool.gpus", "pool.cpu_slots", "pool.threads", "pool.slots_per_gpu", "pool.workers", "study.retries",
    "study.trials", "diagnostics.every", "diagnostics.batches", "allow_incomplete", "grid_dir", "results",
    "hydra.run.dir", "hydra", "_target_", "factors._target_",
]  # fmt: skip
VALUES = [
    "0", "1", "-1", "2", "3.5", "1e-3", "1e400", "-1e400", "nan", "inf", "99999999999999999999", "1000000", "true",
    "false", "null", "''", "'1'", "1+2", "2.1", "[1]", "[]", "[[]]", "{}", "[1,2]", "[0,0]", "[a]", "[null]",
    "[true]", "['1','2']", "['1+2','3']", "[plain]", "[dhm,dsl]", "[dhm,dhm]", "[0.1,0.2]", "{a:1}", "{alpha:1}",
    "{lr:fast}", "[{after:1,blocks:[1,1]}]", "[{after:9,blocks:[]}]", "[{after:1,blocks:[-1,0]}]",
    "[{after:1,blocks:[1000000,1]}]", "[{after:1,blocks:[1,1],width:1e9}]", "[{after:1,block:7,blocks:[1,1,1]}]",
    "[{name:ce}]", "[{name:ce,weight:x}]", "[{student:main,teacher:main}]", "resnet8", "resnet9", "plain", "digits",
    "cifar10", "imagenet", "methods", "mimicking_weight_search", "released", "failed", "stale", "cosine", "bf16",
    "all", "auto", "sides_to_main", "${oc.env:HOME}", "${epochs}", "${oc.decode:1}", "../../etc", "/dev/null",
    "/etc/passwd", "~", ".", "\\\\", "$(id)", "`id`", ";ls", "%s", "{0}", "[/]", "[red]", "<script>", "é", "🙂",
    "\x00", "\n", "[[[[[[", "}}}}",
]  # fmt: skip

names = st.one_of(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["s", "_", ".x", ".", "@y", ":z", " ", "[0]"])).map("".join),
    st.text(max_size=8),
)
values = st.one_of(st.sampled_from(VALUES), st.text(max_size=20), st.floats().map(str), st.integers().map(str))
words = st.one_of(
    st.tuples(names, values).map("=".join),
    st.tuples(st.sampled_from(["+", "++", "~", "-", "--"]), st.tuples(names, values).map("=".join)).map("".join),
    st.text(max_size=12),
).filter(lambda word: word not in ("-h", "--help", "help"))
grids = st.sampled_from(["methods", "mimicking_weights", "branch_positions", "depths", "mimicking_weight_search"])


def settings_are_heeded_or_refused(ground: Ground, grid: str, given: Sequence[str]) -> None:
    checked(run, [f"grid={grid}", *given, "plan=true", f"store={ground.store}"])


# --- Grid files --------------------------------------------------------------------------------------------

plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=4),
    st.sampled_from(["1+2", "dhm", "plain", "resnet14", "../x", "[/]", "${oc.env:HOME}", 1e-3, 0.1, -1, 10**30]),
)  # fmt: skip
anything = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip
factors = st.dictionaries(st.sampled_from([name.removeprefix("factors.") for name in NAMES]), anything, max_size=3)


@st.composite
def grid_files(draw: st.DrawFn) -> bytes:
    """A grid file: one field or another is something else, or the text is damaged."""
    content: dict[str, Any] = dict(GRID)
    for name in draw(
        st.lists(st.sampled_from([*GRID, "title", "reading", "diagnostics_every", "source", "name"]), max_size=3)
    ):
        what = draw(st.sampled_from(["gone", "other", "factors"]))
        if what == "gone":
            content.pop(name, None)
        else:
            content[name] = draw(anything if what == "other" else factors)
    text = yaml.dump(content, allow_unicode=True).encode()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        inserted = draw(st.one_of(st.binary(max_size=3), st.sampled_from(BITS)))
        text = text[:at] + inserted + text[at + draw(st.integers(0, 4)) :]
    return text


BITS = [
    b"!!python/object/apply:os.system ['touch hurt']", b"&a [*a, *a]", b"*a", b"<<: ", b"%YAML 9", b"---\n", b"\t",
    b"!!set",
    b"[" * 3000, b"{a: " * 2000, b"? ", b"!!binary x", b"\xff\xfe", b"factors:\n", b"seeds: 1\n", b"\x00",
]  # fmt: skip
file_names = st.sampled_from(["mine", "mine", "mine", "..", "a b", "methods", "x;y", "é", "-", "a" * 70, "a.b"])


def grid_files_are_data(ground: Ground, content: bytes, name: str) -> None:
    folder = ground.folder / "grids"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / f"{name}.yaml").write_bytes(content)
    checked(run, [f"grid={name}", f"grid_dir={folder}", "plan=true", f"store={ground.store}"])
    assert not Path("hurt").exists(), "it ran code"


# --- Checkpoints and weights -------------------------------------------------------------------------------


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A way to damage a file."""
    seed, kind = draw(st.integers(0, 2**32)), draw(st.sampled_from(["cut", "flip", "fill", "insert", "whole"]))
    made = draw(st.binary(min_size=1, max_size=40))

    def damaged(content: bytes) -> bytes:
        at = seed % max(1, len(content))
        if kind == "cut":
            return content[:at]
        if kind == "whole":
            return made
        if kind == "insert":
            return content[:at] + made + content[at:]
        changed = bytes(255 - byte for byte in content[at : at + 8]) if kind == "flip" else made * 50
        return content[:at] + changed + content[at + len(changed) :]

    return damaged


def weights_run_no_code(ground: Ground, hurt: Callable[[bytes], bytes]) -> None:
    """Of the released code's files, and of our own checkpoints."""
    state = {"state_dict": {"module.conv1.weight": torch.zeros(16, 3, 3, 3)}, "epoch": 3}
    path = ground.folder / "weights.pth"
    torch.save(state, path)
    path.write_bytes(hurt(path.read_bytes()))
    assert checked(evaluate.main, ["arch=resnet32", f"weights={path}", f"data.root={ground.folder}"]) == 2
    saved = ground.folder / "cell.ckpt"
    checkpoint.save(saved, state)
    before = saved.read_bytes()
    saved.write_bytes(hurt(before))
    checkpoint.previous(saved).unlink(missing_ok=True)
    found, problems = checkpoint.load_newest(saved)
    assert (found is None) == (saved.read_bytes() != before) == bool(problems), "it is whole, or it is known not to be"


# --- Stores ------------------------------------------------------------------------------------------------

COMMANDS: dict[str, Callable[[Path, Path, str], int]] = {
    "plan": lambda store, out, run_id: checked(
        run, ["grid=methods", "epochs=2", "seeds=2", "plan=true", f"store={store}"]
    ),
    "status": lambda store, out, run_id: checked(status.main, [f"store={store}"]),
    "json": lambda store, out, run_id: checked(status.main, [f"store={store}", "--json"]),
    "clean": lambda store, out, run_id: checked(clean.main, [f"store={store}", f"runs={run_id}"]),
    "build": lambda store, out, run_id: checked(
        build.main, ["--store", str(store), "--out", str(out), "--quiet", "--plan", "x"]
    ),
    "reproduce": lambda store, out, run_id: checked(reproduce.main, [run_id, f"store={store}", "device=cuda"]),
}
edits = st.tuples(
    st.sampled_from(["tags", "params", "metrics", "runs", "experiment_tags", "experiments"]),
    st.one_of(
        st.sampled_from(["", "x", "-1", "1e999", "../../../etc", "[/]", "null", "{}", "999999999999999999999999"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    ),
    st.integers(0, 2**32),
)
COLUMNS = {
    "tags": "value", "params": "value", "metrics": "value", "runs": "status", "experiment_tags": "value",
    "experiments": "name",
}  # fmt: skip


def edited_stores_are_refused_or_read(ground: Ground, edit: tuple[str, str, int], command: str) -> None:
    """A store of which one entry says something else."""
    table, value, seed = edit
    copy = ground.folder / "store"
    shutil.copytree(ground.store, copy, dirs_exist_ok=True)
    with contextlib.closing(sqlite3.connect(copy / "mlflow.db")) as database, database:
        rows = database.execute(f"SELECT rowid FROM {table}").fetchall()
        (row,) = rows[seed % len(rows)]
        with contextlib.suppress(sqlite3.IntegrityError):
            database.execute(f"UPDATE {table} SET {COLUMNS[table]} = ? WHERE rowid = ?", (value, row))
        run_id = str(database.execute("SELECT run_uuid FROM runs").fetchone()[0])
    COMMANDS[command](copy, ground.folder / "out", run_id)


def damaged_stores_are_refused_or_read(ground: Ground, file: str, hurt: Callable[[bytes], bytes], command: str) -> None:
    """A store of which one file is damaged."""
    copy = ground.folder / "store"
    shutil.copytree(ground.store, copy, dirs_exist_ok=True)
    with contextlib.closing(sqlite3.connect(copy / "mlflow.db")) as database:
        run_id = str(database.execute("SELECT run_uuid FROM runs").fetchone()[0])
    (path,) = copy.glob(file.format(run_id))
    path.write_bytes(hurt(path.read_bytes()))
    COMMANDS["reproduce" if "artifacts" in file else command](copy, ground.folder / "out", run_id)


FILES = (
    "mlflow.db",
    "optuna.journal",
    "artifacts/digits/methods/{}/artifacts/recipe.json",
    "artifacts/digits/methods/{}/artifacts/environment.json",
)


def edited_records_are_not_believed(ground: Ground, name: str, value: Any) -> None:
    """A recipe.json, or an environment.json, of which an entry says something else."""
    copy = ground.folder / "store"
    shutil.copytree(ground.store, copy, dirs_exist_ok=True)
    folder = next((copy / "artifacts" / "digits" / "methods").iterdir())
    path = folder / "artifacts" / name
    document = json.loads(path.read_text())
    key = list(document)[len(repr(value)) % len(document)]
    document[key] = value
    path.write_text(json.dumps(document))
    checked(reproduce.main, [folder.name, f"store={copy}", "device=cuda"])


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
