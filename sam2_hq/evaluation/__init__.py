"""Scores of masks as the benchmarks define them, and the runs that produce the masks."""
