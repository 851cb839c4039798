"""The image builder's parts that need no network: the same input gives the same bytes, and
an archive is what engines, registries and scanners take it for."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_string
from pathlib import Path

import pytest
from imagebuilder import checks, elf, layer, sbom, source
from imagebuilder.architecture import AMD64, ARM64
from imagebuilder.archive import ImageSettings, assemble, read_archive, write_archive, write_layout
from imagebuilder.base import Package
from imagebuilder.builder import labels
from imagebuilder.layer import Layer, pack_layer
from imagebuilder.licences import in_notice, of_python
from imagebuilder.main import default_tags
from imagebuilder.wheels import Wheel

THEN = datetime(2026, 11, 24, 4, 5, 6, tzinfo=UTC)
WHEEL = Wheel("moffett-k8s-device-plugin", "0.1.0", "A plugin", "Apache-2.0", "ab" * 32, Path())


def compress(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


def tree(folder: Path, *, backwards: bool = False) -> Path:
    """A small root; `backwards`: written the other way round, at another time, by a user
    with another umask."""
    files = {"usr/bin/program": 0o755, "usr/lib/module.py": 0o644, "etc/passwd": 0o644}
    for name, mode in sorted(files.items(), reverse=backwards):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(mode | 0o020 if backwards else mode)
        os.utime(path, (1e9, 1e9) if backwards else None)
        if backwards and os.geteuid() == 0:
            os.chown(path, 1000, 1000)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    (folder / "usr/bin").chmod(0o700 if backwards else 0o755)
    (folder / "bin").symlink_to("usr/bin")
    return folder


def image(folder: Path, architecture: str = "amd64") -> tuple[ImageSettings, tuple[Layer, ...]]:
    packed = pack_layer(tree(folder), "all", compress)
    settings = ImageSettings(
        architecture,
        THEN,
        entrypoint=("/usr/bin/program",),
        command=("serve",),
        environment=("PATH=/usr/bin",),
        labels=labels(WHEEL, source.Origin("6057eae1", THEN)),
    )
    return settings, (packed,)


# -- layers -----------------------------------------------------------------------------


def test_the_same_files_make_the_same_layer(tmp_path: Path) -> None:
    one = pack_layer(tree(tmp_path / "one"), "", compress)
    other = pack_layer(tree(tmp_path / "other", backwards=True), "", compress)
    assert one.blob.digest == other.blob.digest
    (tmp_path / "one/usr/lib/module.py").write_text("another")
    assert pack_layer(tmp_path / "one", "", compress).blob.digest != other.blob.digest


def test_a_layer_has_the_order_of_names_and_not_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["z", "b", "m/y", "m/a", "c/x"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    walk, digests = os.walk, set()
    for backwards in (False, True):

        def listed(top: Path, backwards: bool = backwards) -> Iterator[object]:
            for folder, folders, files in walk(top):
                folders.sort(reverse=backwards)
                yield folder, folders, sorted(files, reverse=backwards)

        monkeypatch.setattr(layer.os, "walk", listed)
        digests.add(pack_layer(tmp_path, "", compress).blob.digest)
    assert len(digests) == 1


def test_a_layer_belongs_to_root_and_can_be_read_by_all(tmp_path: Path) -> None:
    packed = pack_layer(tree(tmp_path / "root", backwards=True), "", compress)
    with tarfile.open(fileobj=io.BytesIO(packed.blob.content)) as tar:
        members = {member.name: member for member in tar}
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members.values()} == {
        (0, 0, "", "", 0)
    }
    modes = {name: oct(member.mode) for name, member in members.items() if not member.issym()}
    assert modes["usr/bin"] == modes["usr/bin/program"] == "0o755"
    assert modes["etc/passwd"] == modes["usr/lib/module.py"] == "0o644"
    assert modes["tmp"] == "0o1777"
    assert members["bin"].linkname == "usr/bin"


def test_a_layer_has_what_the_one_below_has_not(tmp_path: Path) -> None:
    below, above = tree(tmp_path / "below"), tree(tmp_path / "above")
    (above / "usr/lib/more.py").write_text("more")
    packed = pack_layer(above, "", compress, below=below)
    with tarfile.open(fileobj=io.BytesIO(packed.blob.content)) as tar:
        assert tar.getnames() == ["usr/lib/more.py"]


# -- archives ---------------------------------------------------------------------------


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def test_docker_and_oci_find_the_same_image_in_an_archive(tmp_path: Path) -> None:
    settings, layers = image(tmp_path / "root")
    write_archive(assemble(layers, settings, ["moffett/k8s-device-plugin:v0.1.0"]), tmp_path / "i")
    files = members(tmp_path / "i")
    (docker,) = json.loads(files["manifest.json"])
    assert docker["RepoTags"] == ["moffett/k8s-device-plugin:v0.1.0"]
    (entry,) = json.loads(files["index.json"])["manifests"]
    name = entry["annotations"]["io.containerd.image.name"]
    assert name == "docker.io/moffett/k8s-device-plugin:v0.1.0"
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}
    manifest = json.loads(files["blobs/" + entry["digest"].replace(":", "/")])
    assert docker["Config"] == "blobs/" + manifest["config"]["digest"].replace(":", "/")
    assert docker["Layers"] == [
        "blobs/" + each["digest"].replace(":", "/") for each in manifest["layers"]
    ]
    for path, content in files.items():
        if path.startswith("blobs/"):
            assert layer.sha256(content) == path.removeprefix("blobs/").replace("/", ":")
    config = json.loads(files[docker["Config"]])
    assert config["rootfs"]["diff_ids"] == [
        layer.sha256(gzip.decompress(files[path])) for path in docker["Layers"]
    ]
    assert config["created"] == "2026-11-24T04:05:06Z"
    assert config["config"]["Entrypoint"] == ["/usr/bin/program"]
    assert "User" not in config["config"]  # whoever runs it says as whom


def test_an_archive_has_no_trace_of_where_and_when_it_was_built(tmp_path: Path) -> None:
    for name in ("one", "other"):
        settings, layers = image(tmp_path / name / "root")
        write_archive(assemble(layers, settings, ["a:b"]), tmp_path / name / "image.tar")
    assert (tmp_path / "one/image.tar").read_bytes() == (tmp_path / "other/image.tar").read_bytes()


def test_the_labels_are_in_the_configuration_and_in_the_manifest(tmp_path: Path) -> None:
    settings, layers = image(tmp_path / "root")
    built = assemble(layers, settings, ["a:b"])
    expected = {
        "title": "Moffett Kubernetes device plugin",
        "description": "A plugin",
        "version": "0.1.0",
        "licenses": "Apache-2.0",
        "revision": "6057eae1",
        "created": "2026-11-24T04:05:06Z",
        "base.name": "debian:bookworm (packages only)",
    }
    shown = {f"org.opencontainers.image.{key}": value for key, value in expected.items()}
    assert json.loads(built.config.content)["config"]["Labels"] == shown
    assert json.loads(built.manifest.content)["annotations"] == shown


def test_a_variant_is_the_image_but_for_what_was_changed(tmp_path: Path) -> None:
    settings, layers = image(tmp_path / "root")
    built = assemble(layers, settings, ["a:b"])
    write_archive(built, tmp_path / "image.tar")
    again, tags, same = read_archive(tmp_path / "image.tar")
    assert assemble(same, again, tags).manifest.digest == built.manifest.digest
    changed = replace(again, environment=(*again.environment, "SPU_SIMULATE=1xS30"))
    config = json.loads(assemble(same, changed, tags).config.content)["config"]
    assert config["Env"] == ["PATH=/usr/bin", "SPU_SIMULATE=1xS30"]


def test_a_layout_has_an_image_for_each_platform_under_one_name(tmp_path: Path) -> None:
    images = []
    for architecture in ("amd64", "arm64"):
        settings, layers = image(tmp_path / architecture, architecture)
        images.append(assemble(layers, settings, ["moffett/k8s-device-plugin:v0.1.0"]))
    index = write_layout(images, tmp_path / "layout.tar")
    files = members(tmp_path / "layout.tar")
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == index.digest
    platforms = json.loads(index.content)["manifests"]
    assert [each["platform"]["architecture"] for each in platforms] == ["amd64", "arm64"]
    for each in platforms:
        assert "blobs/" + each["digest"].replace(":", "/") in files


def test_an_image_has_the_name_of_the_manual_and_that_of_its_version() -> None:
    names = ["moffett/k8s-device-plugin:v0.1.0", "moffett/k8s-device-plugin:v0.2.0"]
    assert default_tags("0.2.0") == names
    assert default_tags("0.1.0") == names[:1]


# -- looking at a root ------------------------------------------------------------------


def test_a_shell_that_slips_in_is_told_of(tmp_path: Path) -> None:
    programs = ("usr/bin/python3.11", "usr/bin/moffett-device-plugin", AMD64.loader)
    for name in (*programs, "usr/bin/sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(0o755)
    (tmp_path / "usr/lib/module.py").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "usr/lib/module.py").touch(0o644)
    (fault,) = checks.more_programs(tmp_path, AMD64)
    assert fault.startswith("/usr/bin/sh is a program")


def test_a_library_that_was_left_out_is_told_of(tmp_path: Path) -> None:
    program = Path(sys.executable).resolve()
    (tmp_path / "program").write_bytes(program.read_bytes())
    linked = elf.read(program.read_bytes())
    assert linked is not None
    assert "libc.so.6" in linked.needed
    assert list(elf.faults(tmp_path, linked.machine)) == [
        f"/program needs {name}, which is not in the image" for name in linked.needed
    ]
    other = next(each.elf for each in (AMD64, ARM64) if each.elf != linked.machine)
    assert next(elf.faults(tmp_path, other)).startswith("/program is for another machine")


def test_modules_of_the_standard_library_are_found_where_they_are_imported(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        "from typing import TYPE_CHECKING\nimport yaml\nfrom . import other\n"
        "if TYPE_CHECKING:\n    import sqlite3\n"
        "def f():\n    from http.client import HTTPConnection\n    import shutil\n"
    )
    assert checks.library_modules(tmp_path) == {"typing", "http.client", "shutil"}


# -- the bill of materials --------------------------------------------------------------

NOTICE = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Files: *
License: Zlib
"""


def test_the_bill_of_materials_names_packages_as_scanners_do() -> None:
    debian = sbom.debian_component(
        Package("zlib1g", "1:1.2.13.dfsg-1", "amd64", "cd" * 32, "Zlib", NOTICE), "12"
    )
    python = sbom.Component("pypi", "h11", "0.16.0", "ef" * 32, "MIT")
    own = sbom.Component("pypi", WHEEL.name, WHEEL.version, WHEEL.sha256, WHEEL.license)
    subject = sbom.Subject("0.1.0", "amd64", "sha256:" + "12" * 32, THEN, "Apache-2.0")
    document = json.loads(sbom.text(sbom.document(subject, [debian, own, python])))
    packages = {each["name"]: each for each in document["packages"]}
    urls = {
        name: each["externalRefs"][0]["referenceLocator"].partition("?")[0]
        for name, each in packages.items()
    }
    assert urls == {
        "moffett/k8s-device-plugin": "pkg:oci/k8s-device-plugin@sha256%3A" + "12" * 32,
        "zlib1g": "pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1",
        "h11": "pkg:pypi/h11@0.16.0",
        "moffett-k8s-device-plugin": "pkg:pypi/moffett-k8s-device-plugin@0.1.0",
    }
    assert packages["zlib1g"]["licenseDeclared"] == "Zlib"
    assert packages["h11"]["checksums"] == [{"algorithm": "SHA256", "checksumValue": "ef" * 32}]
    identifiers = {each["SPDXID"] for each in document["packages"]} | {"SPDXRef-DOCUMENT"}
    related = [
        (each["spdxElementId"], each["relationshipType"], each["relatedSpdxElement"])
        for each in document["relationships"]
    ]
    assert {end for first, _, last in related for end in (first, last)} == identifiers
    assert (
        "SPDXRef-pypi-moffett-k8s-device-plugin", "DEPENDS_ON", "SPDXRef-pypi-h11"
    ) in related  # fmt: skip
    assert document["creationInfo"]["created"] == "2026-11-24T04:05:06Z"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: Apache-2.0 AND BSD-2-Clause", "Apache-2.0 AND BSD-2-Clause"),
        ("License: 3-Clause BSD License", "BSD-3-Clause"),
        ("License: see file\nClassifier: License :: OSI Approved :: MIT License", "MIT"),
        ("License: what I like", "NOASSERTION"),
    ],
)
def test_licences_of_wheels(metadata: str, expected: str) -> None:
    assert of_python(message_from_string(metadata + "\n\n")) == expected


def test_licences_of_debians_notices() -> None:
    assert in_notice(NOTICE + "\nFiles: a\nLicense: GPL-2+\n a text\n") == ("GPL-2+", "Zlib")
    assert in_notice("This package was debianized by hand.\nLicense: GPL") == ()


# -- which source it is -----------------------------------------------------------------


def git(folder: Path, *arguments: str, **more: str) -> str:
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(
        ["git", *who, "-C", str(folder), *arguments],
        check=True, capture_output=True, text=True, env={**os.environ, **settings, **more},
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, of THEN."""
    for name in ("SOURCE_REVISION", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "checkout"
    (folder / "src/moffett_device_plugin").mkdir(parents=True)
    (folder / "src/moffett_device_plugin/__init__.py").touch()
    (folder / "README.md").touch()
    git(tmp_path, "init", "-q", "checkout")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one", GIT_COMMITTER_DATE=THEN.isoformat())
    return folder


def test_a_build_says_the_commit_and_its_time(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert source.origin(checkout) == source.Origin(commit, THEN)
    (checkout / "README.md").write_text("changed")
    assert source.origin(checkout) == source.Origin(f"{commit}-dirty", THEN)
    monkeypatch.setenv("SOURCE_REVISION", "v0.1.0")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert source.origin(checkout) == source.Origin("v0.1.0", datetime(1970, 1, 2, tzinfo=UTC))


def test_a_copy_without_a_repository_knows_it_still(checkout: Path, tmp_path: Path) -> None:
    of = source.origin(checkout)
    source.copy(checkout, tmp_path / "copy", of)
    assert not (tmp_path / "copy/.git").exists()
    assert source.origin(tmp_path / "copy") == of
    # And one that was never built knows nothing, though a repository is above it.
    inside = checkout / "vendored"
    source.copy(checkout, inside, source.Origin("", THEN), ["src"])
    assert source.origin(inside) == source.Origin("", datetime.fromtimestamp(0, UTC))


def test_a_copy_has_neither_outputs_nor_the_users_modes(checkout: Path, tmp_path: Path) -> None:
    for name in ("dist/old.whl", "build/lib/a.py", "src/a.egg-info/PKG-INFO", ".venv/bin/python"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    (checkout / "run").touch(0o700)
    (checkout / "README.md").chmod(0o660)
    source.copy(checkout, tmp_path / "copy", source.Origin("", THEN))
    found = {str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*")}
    assert found == {
        "README.md", "run", "src", "src/moffett_device_plugin",
        "src/moffett_device_plugin/__init__.py",
    }  # fmt: skip
    assert (tmp_path / "copy/run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "copy/README.md").stat().st_mode & 0o777 == 0o644
