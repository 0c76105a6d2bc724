"""Folders of VASP runs: vasprun.xml and OUTCAR."""
