from pathlib import Path

import pytest

from tests.docs.home import make_home


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def at_home(home, monkeypatch) -> Path:
    """In the working folder that the docs speak of."""
    monkeypatch.chdir(home)
    return home
