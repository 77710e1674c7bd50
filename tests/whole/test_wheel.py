"""An installed wheel works without the checkout: command, configs and Slurm templates."""

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import REPO

pytestmark = pytest.mark.whole


def pip(*arguments: str) -> None:
    result = subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], cwd=REPO,
                          capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_installed_wheel_prints_help_and_finds_a_config_by_name(tmp_path):
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
        # Run in another folder, so that nothing is imported from the checkout; dependencies come from this environment.
        return subprocess.run([sys.executable, "-c", "import sys; from launcher.start import main; sys.exit(main())",
                               *arguments], cwd=tmp_path, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(home)})
    assert (home / "bin" / "fleet-rcnn").is_file()
    assert "runs and jobs:" in fleet("--help").stdout
    checked = fleet("check", "shapes/demo", f"data.root={tmp_path / 'shapes'}", f"data.cache={tmp_path / 'cache'}")
    assert checked.returncode == 0 and "no problem found" in checked.stdout, checked.stdout + checked.stderr
    misspelt = fleet("check", "custom/bccdd")
    assert misspelt.returncode == 2 and "did you mean custom/bccd" in misspelt.stderr
