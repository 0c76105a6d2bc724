"""Made-up compositions, and energies that belong to them."""

import numpy as np

HYDROGEN, LITHIUM, OXYGEN, IRON = 0, 2, 7, 25


def compositions(*cells):
    """Counts of elements, (num_cells, 94), of cells given as {element's index: number of atoms}."""
    counts = np.zeros((len(cells), 94), dtype=np.int64)
    for row, cell in enumerate(cells):
        for element, number in cell.items():
            counts[row, element] = number
    return counts


def random_set(num_records=60, noise=0.05):
    """Oxides of lithium and iron: counts, energies with noise (eV), and the elements' energies (eV per atom)."""
    rng = np.random.default_rng(0)
    counts = np.zeros((num_records, 94), dtype=np.int64)
    counts[:, [LITHIUM, OXYGEN, IRON]] = rng.integers(0, 5, size=(num_records, 3))
    counts[:, OXYGEN] += 1
    truth = np.zeros(94)
    truth[[LITHIUM, OXYGEN, IRON]] = -1.9, -5.2, -8.1
    sizes = counts.sum(axis=1)
    return counts, counts @ truth + rng.normal(scale=noise, size=num_records) * sizes, truth
