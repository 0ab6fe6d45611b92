"""Other software for linear mixed models and crosslmm on the same data, in one run: ``python -m benchmarks.run``."""
