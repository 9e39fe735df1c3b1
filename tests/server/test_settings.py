"""Settings are options of `qrhead serve`, and are there without the packages that the server itself needs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest

import qr_core.server
from qr_core.server import Settings


def test_every_setting_but_the_keys_says_what_it_is_for():
    assert [one.name for one in fields(Settings) if not one.metadata.get("help")] == ["keys"]


def test_settings_need_no_extra():
    code = "import sys; sys.modules |= dict.fromkeys(['fastapi', 'starlette', 'uvicorn', 'pydantic', 'torch']); "
    code += "from qr_core.server import ApiKeys, Settings; print(Settings(keys=ApiKeys([('anna', 'key')])).max_queue)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("64\n", "")


@pytest.mark.parametrize("package", ["fastapi", "prometheus_client", "uvicorn"])
def test_a_missing_extra_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package} is missing: pip install 'qrhead\[serve\]'"):
        qr_core.server.create_app  # noqa: B018
