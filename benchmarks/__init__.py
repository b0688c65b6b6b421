"""Benchmarks: always beside a peer in the same run, and told as ratios to it."""
