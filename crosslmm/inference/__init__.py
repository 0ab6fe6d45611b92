"""Inference after a fit: tests, intervals, profiles, resampling."""
