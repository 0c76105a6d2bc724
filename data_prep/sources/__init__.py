"""One reader for each raw format; every reader streams and holds only a bounded part of its file."""
