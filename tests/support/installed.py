"""The entry points as they are in pyproject.toml, whatever this environment was installed from."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def installed(folder: Path) -> Path:
    """Make a folder that, on `PYTHONPATH`, stands for an installation of the checkout's metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"trio_agent-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: trio-agent\nVersion: {project['version']}\n"
    )
    (info / "RECORD").write_text("")
    groups = project["entry-points"]
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items()) + "\n"
            for group, entries in groups.items()
        )
    )
    return folder
