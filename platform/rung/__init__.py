"""Rung: universal interatomic potentials from GGA pretraining to r²SCAN."""

__version__ = "0.1.0"
