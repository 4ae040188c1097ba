"""The groups of benchmarks, a module each; report.py runs them."""
