"""Open an MLflow store and find things in it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The experiment is about training a model; otherwise MLflow guesses, and asks its user."""


def open_store(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """A client and the id of an experiment, which is made if it is not there.

    Args:
        uri: The store.
        experiment: Name of the experiment.

    Raises:
        Exception: Whatever MLflow raises.
    """
    database = _sqlite_file(uri)
    with _locked(database):
        client = MlflowClient(uri)  # makes the tables of a new SQLite file
        return client, _find_experiment(client, experiment, database)


def has_experiment(uri: str, experiment: str) -> bool:
    """Whether a store is there and has an experiment; makes neither."""
    database = _sqlite_file(uri)
    if database is not None and not database.exists():
        return False
    return MlflowClient(uri).get_experiment_by_name(experiment) is not None


def search_runs(client: MlflowClient, experiment: str, condition: str) -> list[Run]:
    """All runs of an experiment that meet a condition."""
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment], condition, max_results=1000, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _find_experiment(client: MlflowClient, name: str, database: Path | None) -> str:
    location = (database.parent / "mlartifacts").as_uri() if database else None
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=KIND))
        except MlflowException:  # another run was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store."""
    if not uri.startswith("sqlite"):
        return None
    database = make_url(uri).database
    return Path(database).absolute() if database and database != ":memory:" else None


@contextmanager
def _locked(database: Path | None) -> Iterator[None]:
    """Held while a SQLite store is opened: two processes that make its tables at once break it for good."""
    if database:
        database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f".{database.name}.lock"), timeout=300) if database else nullcontext():
        yield
