"""A trained model at work: batch prediction, and a calculator for ASE."""
