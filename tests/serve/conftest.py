import pytest

from tests.serve.served import tiny_mufun


@pytest.fixture(scope="session")
def model():
    return tiny_mufun()
