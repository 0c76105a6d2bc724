"""Who starts the loop, and who watches it: Ray, torchrun, this process; MLflow."""
