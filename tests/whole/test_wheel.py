"""The wheel stands alone: command, recipes and templates work with nothing else of the checkout."""

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import REPO

pytestmark = pytest.mark.whole


def pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], cwd=REPO,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_installed_wheel_helps_and_finds_a_config_by_name(tmp_path):
    pip("wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path))
    wheel, = tmp_path.glob("fleet_rcnn-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for config in (REPO / "configs").rglob("*.yaml"):
        assert f"detector/shipped/{config.relative_to(REPO)}" in names
    assert any(name.startswith("detector/shipped/slurm/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"launcher", "detector", wheel.name.rsplit("-py3")[0] + ".dist-info"}

    home = tmp_path / "installed"
    pip("install", "--no-deps", "--no-index", "--target", str(home), str(wheel))

    def fleet(*arguments: str) -> subprocess.CompletedProcess:
        # In another folder nothing of the checkout can be meant; the dependencies are this environment's.
        return subprocess.run([sys.executable, "-c", "import sys; from launcher.cli import main; sys.exit(main())",
                               *arguments], cwd=tmp_path, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(home)})
    assert (home / "bin" / "fleet-rcnn").is_file()
    assert "verbs:" in fleet("--help").stdout
    said = fleet("check", "shapes/demo", f"data.root={tmp_path / 'shapes'}", f"data.cache={tmp_path / 'cache'}")
    assert said.returncode == 0 and "no problem found" in said.stdout, said.stdout + said.stderr
    wrong = fleet("check", "custom/bccdd")
    assert wrong.returncode == 2 and "did you mean custom/bccd" in wrong.stderr
