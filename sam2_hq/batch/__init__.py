"""Tracking whole data sets: jobs, a queue of sequences, and the engines that work on it."""
