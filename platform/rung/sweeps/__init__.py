"""Sweeps without a cluster: which trials there are, how they went, what they say."""
