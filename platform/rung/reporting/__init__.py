"""One look for every HTML report of Rung: knows plots and tables, not the domain."""
