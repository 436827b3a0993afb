"""All measurements in turn, each in a process of its own, and the page that shows them.

    python -m benchmarks [--only data training] [--page docs/benchmarks.md]

Takes about half an hour on two cores, most of it for training, scaling and analysis_scale. Close what else is running:
the load that each began with stands on the page beside its figures. One that fails leaves its old figures, and the exit
code 1.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.page import PAGE, SECTIONS, write_page


def main() -> int:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    failed = []
    for name in options.only:
        print(f"\npython -m benchmarks.{name}: {SECTIONS[name].title}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    write_page(options.page)
    if failed:
        print(f"failed, and not measured anew: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
