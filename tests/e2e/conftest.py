"""What tests of real clients and servers share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No credentials and no configuration but the test's own."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("CLOCHE_NETWORK", "none")
    monkeypatch.delenv("CLOCHE_CONFIG", raising=False)
    return tmp_path / "docker"
