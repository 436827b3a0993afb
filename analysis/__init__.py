"""The paper: reads the tracking store, and rebuilds tables and figures from it."""

import time
import warnings

LOADED = time.time()  # files of this package that are newer are not what this process runs

# In a notebook MLflow imports progress bars that warn of what they lack; none of them is drawn.
warnings.filterwarnings("ignore", "IProgress not found")
