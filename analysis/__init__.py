"""The paper: reads the tracking store, and rebuilds tables and figures from it."""
