"""Pictures of MLflow's pages for the documentation: `make screenshots`, once `make run` has recorded its study."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from analysis import store
from analysis.report import browser

STORE = Path("results/store")
GRID = "digits/branch_positions"
CHARTS = "&compareRunsMode=CHART"  # the same link with MLflow's charts open
PAGES = {"mlflow_runs": "", "mlflow_charts": CHARTS}
COLOURS = 128  # of a picture: enough for pages, a third of the bytes
_PATIENCE = 180  # seconds


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """MLflow's server on a recorded store, as `make ui` starts it; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        command, env={**os.environ, **quiet}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + _PATIENCE
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no MLflow server on {folder}: {' '.join(command)}")
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"{address}/health").status == 200
    return False


def main() -> int:
    """Take every picture; returns the exit code."""
    if browser.find() is None:
        print(f"error: no browser: put one of {', '.join(browser.NAMES)} on the PATH", file=sys.stderr)
        return 2
    try:
        (plan, *_) = [known for known in store.plans(f"sqlite:///{STORE}/mlflow.db") if known.experiment == GRID]
    except ValueError:
        print(f"error: {STORE} has no runs of {GRID}: make run", file=sys.stderr)
        return 2
    with served(STORE) as address:
        for name, more in PAGES.items():
            place = f"{address}/#/experiments/{plan.experiment_id}/runs"
            page = f"{place}?workflowType=machine_learning&viewStateShareKey={plan.plan_id}{more}"
            picture = Path(__file__).with_name(f"{name}.png")
            if not browser.photograph(page, picture):
                print(f"error: the browser took no picture of {page}", file=sys.stderr)
                return 1
            Image.open(picture).quantize(COLOURS).save(picture, optimize=True)
            print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
