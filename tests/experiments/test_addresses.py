"""Addresses of shared stores."""

import pytest

from experiments.stores.addresses import TRACKING, locations


@pytest.mark.parametrize("uri", ["sqlite:////shared/m.db", "sqlite:///beside/m.db", "http://mlflow:5000"])
def test_an_address_without_a_password_stays_as_it_is(uri: str) -> None:
    environment = {TRACKING: uri}
    assert locations(None, None, environment)["tracking"] == uri == environment[TRACKING]
    assert locations(uri, None, {})["tracking"] == uri
