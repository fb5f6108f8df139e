"""Quarry's benchmarks: ours and other people's engines, measured in turns on one machine."""
