"""KnowRL's core: everything that knows neither Prefect nor MLflow."""
