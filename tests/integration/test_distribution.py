"""The wheels and the source distribution, built as a release is, and the lists of what they
need and ship. Nothing here asks a package index."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = {"SOURCE_REVISION": COMMIT, "SOURCE_DATE_EPOCH": "1795493106"}


def build(output: Path, umask: int = 0o022) -> tuple[Path, Path, Path]:
    """Build with the tests' own setuptools; return the wheel, the sdist, and the wheel of
    the conformance suite."""
    subprocess.run(
        [sys.executable, ROOT / "tools/build-dist", "--no-isolation", "--output", output],
        check=True,
        env={**os.environ, **SOURCE},
        stdout=subprocess.DEVNULL,
        umask=umask,
    )
    (sdist,) = output.glob("*.tar.gz")
    (wheel,) = output.glob("moffett_*.whl")
    (conformance,) = output.glob("device_plugin_conformance-*.whl")
    return wheel, sdist, conformance


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path, Path]) -> Path:
    return built[0]


@pytest.fixture(scope="module")
def sdist(built: tuple[Path, Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="module")
def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return message_from_string(read(wheel, "METADATA"))


def read(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
        return archive.read(file).decode()


def project(folder: str = ".") -> dict[str, object]:
    with (ROOT / folder / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


# -- what is in them --------------------------------------------------------------------


def test_the_wheel_has_the_package_and_nothing_else(files: set[str]) -> None:
    package = ROOT / "src/moffett_device_plugin"
    source = {
        f"moffett_device_plugin/{path.relative_to(package)}"
        for pattern in ("*.py", "*.pyi", "*.proto", "py.typed")
        for path in package.rglob(pattern)
    }
    ours = {name for name in files if ".dist-info/" not in name}
    assert ours == source | {"moffett_device_plugin/_build.py"}
    assert "moffett_device_plugin/py.typed" in ours
    licences = {n.rpartition("/")[2] for n in files if ".dist-info/licenses/" in n}
    assert licences == {"LICENSE", "NOTICE"}


def test_the_metadata_is_what_an_index_shows(wheel: Path, metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("moffett-k8s-device-plugin", "0.2.0")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    classifiers = metadata.get_all("Classifier", [])
    for minor in range(11, 15):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers
    assert "Typing :: Typed" in classifiers
    # A licence expression and a licence classifier exclude each other (PEP 639).
    assert not [each for each in classifiers if each.startswith("License ::")]
    assert "moffett-device-plugin = moffett_device_plugin.__main__:main" in read(
        wheel, "entry_points.txt"
    )
    tag = [line for line in read(wheel, "WHEEL").splitlines() if line.startswith("Tag:")]
    assert tag == ["Tag: py3-none-any"]


def test_the_conformance_suite_is_a_wheel_of_its_own(built: tuple[Path, Path, Path]) -> None:
    with zipfile.ZipFile(built[2]) as archive:
        ours = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = ROOT / "conformance/src/device_plugin_conformance"
    source = {path.name for path in package.iterdir() if path.is_file()}
    assert ours == {f"device_plugin_conformance/{name}" for name in source}
    needs = message_from_string(read(built[2], "METADATA")).get_all("Requires-Dist", [])
    assert "moffett-k8s-device-plugin" in needs
    assert "device-plugin-conform = device_plugin_conformance.__main__:main" in read(
        built[2], "entry_points.txt"
    )


def test_the_wheel_says_which_source_it_is(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "moffett_device_plugin", "--version"],
        check=True, capture_output=True, text=True, cwd="/",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == (
        "moffett-device-plugin v0.2.0 (commit 0123456789ab, 2026-11-24T04:05:06Z)\n"
    )


def test_what_runs_from_a_checkout_claims_no_commit() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "moffett_device_plugin", "--version"],
        check=True, capture_output=True, text=True, cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.stdout == "moffett-device-plugin v0.2.0 (commit unknown)\n"


def test_the_source_distribution_can_be_tested_and_built_from(sdist: Path) -> None:
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {
        "CHANGELOG.md", "LICENSE", "MANIFEST.in", "NOTICE", "README.md", "THIRD_PARTY.md",
        "pyproject.toml", "requirements.lock", "requirements-build.lock", "requirements-dev.lock",
        "run", "deploy/image/build", "docs/configuration.md", "tools/build-dist",
        "src/moffett_device_plugin/_build.py", "src/moffett_device_plugin/api/podresources.proto",
        "tests/conftest.py", "tests/integration/test_distribution.py", "conformance/README.md",
        "conformance/pyproject.toml", "conformance/tests/tiny_plugin.py",
    }  # fmt: skip
    assert wanted <= names
    assert not [name for name in names if name.endswith(".pyc") or "/." in f"/{name}"]


# -- the same input gives the same bytes ------------------------------------------------


def test_all_are_built_twice_to_the_same_bytes(
    built: tuple[Path, Path, Path], sdist: Path, tmp_path: Path
) -> None:
    """The second time elsewhere, out of the first source distribution, with a tight umask."""
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path], check=True)
    (source,) = tmp_path.iterdir()
    subprocess.run(
        [sys.executable, source / "tools/build-dist", "--no-isolation"],
        check=True,
        env=os.environ | SOURCE,
        stdout=subprocess.DEVNULL,
        umask=0o077,
    )
    again = source / "dist"
    for first in built:
        assert digest(again / first.name) == digest(first)
        told = (again / f"{first.name}.sha256").read_text()
        assert told == f"{digest(first)}  {first.name}\n"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- locks and licences -----------------------------------------------------------------

PINNED = re.compile(r"^([\w.-]+)==([^ ;]+)(?: ;[^\\]*?)?((?: \\\n +--hash=sha256:\w+)*)$", re.M)


def locked(name: str) -> dict[str, str]:
    """Return the versions of a lock; each of them has to have a hash."""
    versions = {}
    for package, version, hashes in PINNED.findall((ROOT / name).read_text()):
        assert hashes, f"{name}: {package} has no hash"
        versions[canonicalize_name(package)] = version
    return versions


def missing(wanted: list[str], lock: dict[str, str]) -> list[str]:
    """Return what a list of requirements lacks in a lock, and theirs in turn."""
    todo, seen, lacking = list(wanted), set(), []
    while todo:
        requirement = Requirement(todo.pop())
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name not in lock or not requirement.specifier.contains(lock[name]):
            lacking.append(str(requirement))
        elif name not in seen:
            seen.add(name)
            todo += requires(name) or []
    return lacking


def test_the_locks_have_everything_that_is_asked_for() -> None:
    described = project()["project"]
    assert isinstance(described, dict)
    dependencies = described["dependencies"]
    assert missing(dependencies, locked("requirements.lock")) == []
    extra = described["optional-dependencies"]["dev"]
    assert missing(dependencies + extra, locked("requirements-dev.lock")) == []
    conformance = project("conformance")["project"]
    assert isinstance(conformance, dict)
    theirs = [name for name in conformance["dependencies"] if name != described["name"]]
    assert missing(theirs, locked("requirements-dev.lock")) == []
    system = project()["build-system"]
    assert isinstance(system, dict)
    assert missing(system["requires"], locked("requirements-build.lock")) == []


def test_the_locks_agree() -> None:
    """Else the tests run with other versions than the image, or build other wheels."""
    everything = locked("requirements-dev.lock")
    for name in ("requirements.lock", "requirements-build.lock"):
        for package, version in locked(name).items():
            assert everything[package] == version


def test_the_list_of_third_parties_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/list-licences", "--check"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "NOASSERTION" not in (ROOT / "THIRD_PARTY.md").read_text()
