"""What keeps a run going, or ends it in time and with a reason: storage, ranks, data and numbers that fail."""
