"""The inputs that are kept for each target, one archive of them for each.

    python -m tests.fuzz.archives unpack TARGET DIR
    python -m tests.fuzz.archives pack TARGET DIR

The same inputs make the same bytes. `crash-*` once showed a bug.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).with_name("corpus")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def read(target: str) -> dict[str, bytes]:
    """The inputs by name; none if there is no archive."""
    path = FOLDER / f"{target}.zip"
    if not path.exists():
        return {}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(target: str, inputs: Mapping[str, bytes]) -> None:
    """Replaces the archive."""
    with zipfile.ZipFile(FOLDER / f"{target}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(inputs.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)


def main(action: str, target: str, folder: Path) -> None:
    if action == "unpack":
        for name, data in read(target).items():
            (folder / name).write_bytes(data)
    else:
        write(target, {path.name: path.read_bytes() for path in folder.iterdir()})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
