"""CHGNet: weights, evaluation, reference energies, freezing."""
