"""What a model is worth, and its export."""
