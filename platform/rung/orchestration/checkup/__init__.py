"""The checkup of a machine before its first run: what is there, what is wrong, and what to do about it."""
