"""Side-by-side measurements against other frameworks: `python -m experiments.benchmarks.run`."""
