"""The command line with runs that have faults, see `tests.faults.sabotage`."""

import sys

import experiments.execution
import experiments.run
from tests.faults.sabotage import sabotaged

if __name__ == "__main__":
    experiments.execution.run_job = sabotaged
    sys.exit(experiments.run.main())
