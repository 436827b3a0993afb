"""The paper: reads the tracking store, and rebuilds tables and figures from it."""

import warnings

# In a notebook MLflow imports progress bars that warn of what they lack; none of them is drawn.
warnings.filterwarnings("ignore", "IProgress not found")
