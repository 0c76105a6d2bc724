"""The training loop and its parts; knows neither Ray nor MLflow."""
