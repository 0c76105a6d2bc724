"""Materials Project: task documents and entries, from files and from its API."""
