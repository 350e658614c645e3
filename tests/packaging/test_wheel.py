"""What is installed: our packages, all of them, and nothing that belongs to another distribution."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT_OUT = shutil.ignore_patterns(
    ".venv", ".git", "build", "*.egg-info", "__pycache__", ".mypy_cache", ".hypothesis"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout without reaching for the network."""
    source = tmp_path_factory.mktemp("source") / "checkout"
    shutil.copytree(ROOT, source, symlinks=True, ignore=KEPT_OUT)
    target = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_takes_no_foreign_name(wheel: Path) -> None:
    """A distribution named python-statemachine owns that name; pip would merge the two in silence."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"trio_agent"}


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    """A package or a data file that is missing from pyproject.toml would only be missed by users."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "trio_agent").rglob("*")
        if path.suffix in {".py", ".sql", ".json", ".typed"} or path.name == "py.typed"
    }
    machine = {f"trio_agent/statemachine/{path.name}" for path in (ROOT / "statemachine").glob("*.py")}
    wanted = {name for name in ours | machine if "__pycache__" not in name}
    assert wanted - packed == set()


def test_the_wheel_brings_the_pytest_plug_in(wheel: Path) -> None:
    """Whoever installs the package can keep recordings among the tests, without a line of configuration."""
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
    assert "[pytest11]\ntrio_agent = trio_agent.replay.pytest_plugin\n" in archive.read(name).decode()


def test_it_lives_beside_a_distribution_of_that_name(wheel: Path, tmp_path: Path) -> None:
    """Both can be installed, in either order, and each finds its own."""
    other = tmp_path / "python_statemachine-3.0-py3-none-any.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("statemachine/__init__.py", "OWNER = 'another distribution'\n")
        info = "python_statemachine-3.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: python-statemachine\nVersion: 3.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    site = tmp_path / "site"
    for package in (wheel, other):
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(site),
        ]
        subprocess.run([*install, str(package)], check=True, capture_output=True, timeout=120)
    program = (
        "import statemachine, trio_agent.statemachine as ours; "
        "print(statemachine.OWNER, '|', ours.__file__, '|', ours.State.DONE.value)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(site), "PATH": ""},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    owner, place, state = (part.strip() for part in done.stdout.split("|"))
    assert (owner, state) == ("another distribution", "done")
    assert Path(place).is_relative_to(site)
