"""Files that ASE reads: extended XYZ, ASE databases, trajectories and the rest."""
