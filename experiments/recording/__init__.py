"""The record: what is written to MLflow about plans and runs, what made each of them, and trouble on the way there."""
