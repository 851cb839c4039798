"""The images that the tests bring along, made of Debian's static busybox."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from imagebuilder.archive import ImageSettings, assemble, pack_layer, write_archive

from .configuration import PAUSE_IMAGE

# The manual's pod wants this one; any container that stays will do as its stand-in.
SOLA_IMAGE = "sola:3.5.0"
WORKLOAD_IMAGE = "localhost/workload:1"

BUSYBOX = Path("/bin/busybox")

# Ends at once when asked to, unlike `sleep infinity` as process 1.
STAY = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done")


@dataclass(frozen=True, slots=True)
class TestImage:
    """An image and the archive that holds it."""

    tag: str
    archive: Path


def make_images(folder: Path, architecture: str = "amd64") -> list[TestImage]:
    """Make the archives of all test images in a folder."""
    root = folder / "root"
    _make_root(root)
    layer = pack_layer(root, "busybox", lambda content: gzip.compress(content, 1, mtime=0))
    settings = ImageSettings(
        architecture=architecture, command=STAY, environment=("PATH=/bin",), working_dir="/"
    )
    made = []
    for tag in (PAUSE_IMAGE, SOLA_IMAGE, WORKLOAD_IMAGE):
        archive = folder / f"{tag.replace('/', '_').replace(':', '_')}.tar"
        write_archive(assemble([layer], settings, [tag]), archive)
        made.append(TestImage(tag, archive))
    return made


def _make_root(root: Path) -> None:
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy2(BUSYBOX, root / "bin" / "busybox")
    applets = subprocess.run(
        [BUSYBOX, "--list"], check=True, capture_output=True, text=True
    ).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
