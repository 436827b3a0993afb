"""The command line with runs that have faults, see `tests.faults.sabotage`."""

import sys

import experiments.run
import experiments.session
from tests.faults.sabotage import sabotaged

if __name__ == "__main__":
    experiments.session.run_job = sabotaged
    sys.exit(experiments.run.main())
