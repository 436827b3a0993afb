"""Addresses of shared stores. A password stays in the environment: what is passed on, shown and recorded has none."""

import os
from collections.abc import MutableMapping
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit, urlunsplit

TRACKING, QUEUE = "MLFLOW_TRACKING_URI", "DHM_QUEUE"
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")


def locations(
    tracking: str | None, queue: str | None, environment: MutableMapping[str, str] = os.environ
) -> dict[str, str | None]:
    """The addresses of the stores, from settings or else from the environment, for `Stores`.

    Raises:
        ValueError: a setting has a password, or a driver is missing.
    """
    found: dict[str, str | None] = {}
    for name, said, variable in (("tracking", tracking, TRACKING), ("queue", queue, QUEUE)):
        if said is not None and urlsplit(said).password is not None:
            raise ValueError(
                f"{name}={masked(said)}: a password on the command line is seen by everybody on this machine: put the "
                f"whole address into the environment as {variable}, or the password as PGPASSWORD "
                "(MLFLOW_TRACKING_PASSWORD for a server)"
            )
        uri = said or environment.get(variable)
        found[name] = None if uri is None else _without_password(uri, variable, environment)
        if uri is not None and found[name] != uri and variable in environment:
            environment[variable] = str(found[name])  # what libraries read, and runs inherit
    return found


def masked(address: str) -> str:
    """An address that can be shown."""
    parts = urlsplit(address)
    if parts.password is None:
        return address
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}"))


def _without_password(uri: str, variable: str, environment: MutableMapping[str, str]) -> str:
    """The address for the drivers that are here; its password moves to where the driver looks for it."""
    parts = given = urlsplit(uri)
    if parts.scheme in _POSTGRES:
        if find_spec("psycopg") is None:
            raise ValueError("PostgreSQL needs its driver: pip install 'dhm-ablation[postgres]'")
        parts = parts._replace(scheme="postgresql+psycopg")
    if parts.password is None:
        # `sqlite:////file` would come out of its parts as another address.
        return uri if parts is given else urlunsplit(parts)
    if parts.scheme in ("http", "https"):
        moved = {"MLFLOW_TRACKING_USERNAME": parts.username or "", "MLFLOW_TRACKING_PASSWORD": parts.password}
        netloc = parts.netloc.rpartition("@")[2]
    elif parts.scheme == "postgresql+psycopg":
        moved = {"PGPASSWORD": parts.password}
        netloc = f"{parts.username}@{parts.netloc.rpartition('@')[2]}"
    else:
        raise ValueError(f"{variable}: a password can be given for PostgreSQL and for an MLflow server alone")
    for name, value in moved.items():
        if environment.setdefault(name, unquote(value)) != unquote(value):
            raise ValueError(f"{variable} has another password than {name}: give one, or use ~/.pgpass for both")
    return urlunsplit(parts._replace(netloc=netloc))
