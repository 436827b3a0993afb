"""Measurements: run them alone on a quiet machine; `make bench` writes their figures into benchmarks/results."""
