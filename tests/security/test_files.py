"""Files that are read and written where others can put things."""

from __future__ import annotations

import os
import re
import stat
import tarfile
from pathlib import Path

import pytest

from moffett_device_plugin.cdi.directory import CdiDirectory
from moffett_device_plugin.cdi.spec import build_spec
from moffett_device_plugin.doctor import bundle, redact
from moffett_device_plugin.doctor.redact import Redactor
from moffett_device_plugin.hardware.simulated import write_control
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.labels.nfd import FeatureFile
from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.settings.document import MAX_VALUES, parse
from moffett_device_plugin.settings.load import read
from tests.security.limits import an_end
from tests.support.values import snapshot_of

# -- written -----------------------------------------------------------------------------------


def writers(folder: Path) -> dict[str, Path]:
    """Writes each kind of file there is, and says where."""
    cdi = CdiDirectory(folder)
    cdi.write(build_spec(snapshot_of("1xS4")) or {})
    nfd = FeatureFile(folder / "moffett-spu")
    nfd.write({"moffett.ai/spu.present": "true"})
    report = folder / "report.tgz"
    bundle.write(report, [("a.txt", "text")], Redactor())
    control = folder / "simulation.json"
    write_control(control, Faults())
    return {"cdi": cdi.file, "nfd": nfd.path, "bundle": report, "control": control}


def test_files_have_the_modes_that_their_readers_need_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            files = writers(tmp_path)
        finally:
            os.umask(before)
        modes = {name: stat.S_IMODE(path.stat().st_mode) for name, path in files.items()}
        assert modes == {"cdi": 0o644, "nfd": 0o644, "bundle": 0o600, "control": 0o600}
        for path in files.values():
            path.unlink()


def test_a_link_in_a_files_place_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    names = [path.name for path in writers(tmp_path).values()]
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    secret.chmod(0o640)
    for name in names:
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(secret)
    for path in writers(tmp_path).values():
        assert not path.is_symlink()
    assert secret.read_text() == "not yours"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o640


def test_a_second_name_of_a_strangers_file_is_not_written_through(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    names = [path.name for path in writers(tmp_path).values()]
    for name in names:
        (tmp_path / name).unlink()
        (tmp_path / name).hardlink_to(secret)
    writers(tmp_path)
    assert secret.read_text() == "not yours"


def test_nothing_half_written_is_ever_under_a_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in writers(tmp_path).values()}
    listed = set(os.listdir(tmp_path))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    cdi, nfd = CdiDirectory(tmp_path), FeatureFile(tmp_path / "moffett-spu")
    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "fchmod", full)
    for write in (
        lambda: cdi.write(build_spec(snapshot_of("1xS30")) or {}),
        lambda: nfd.write({"moffett.ai/spu.present": "false"}),
    ):
        with pytest.raises(Exception, match="No space left"):
            write()
    monkeypatch.setattr(bundle, "pack", full)
    with pytest.raises(OSError, match="No space left"):
        bundle.write(tmp_path / "report.tgz", [], Redactor())
    assert {path: path.read_bytes() for path in before} == before
    assert set(os.listdir(tmp_path)) == listed


def test_a_traps_name_cannot_be_guessed_in_a_directory_that_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle goes where its user says, which may be /tmp."""
    names = set()
    real = os.open

    def noted(path: str, flags: int, *rest: int, **named: int) -> int:
        if flags & os.O_CREAT:
            names.add(os.fspath(path))
            assert flags & os.O_EXCL
            assert flags & os.O_NOFOLLOW
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", noted)
    for _ in range(10):
        bundle.write(tmp_path / "report.tgz", [], Redactor())
    assert len(names) == 10


def test_members_of_a_bundle_stay_in_its_folder_and_are_their_owners(tmp_path: Path) -> None:
    bundle.write(tmp_path / "r.tgz", [("sysfs/0000:36:00.0.txt", "x")], Redactor())
    with tarfile.open(tmp_path / "r.tgz") as archive:
        for member in archive.getmembers():
            assert member.isreg()
            assert member.mode == 0o600
            assert member.name.startswith("moffett-doctor/")
            assert ".." not in member.name


@pytest.mark.parametrize(
    "piece",
    [
        "a-", "a_", "eyJa-", "eyJa.", "1-", "a+", "01234567-", "token ", "token=\"", "serial ",
        "://a", "--token ", "--token '", "-secret", "SN: ", "123456789012",
        "-----BEGIN A-----", "-----END A ", "bearer ", "xoxb-", "ghp_a", " ", "\n",
    ],
)  # fmt: skip
def test_no_text_keeps_the_search_for_secrets_busy(piece: str) -> None:
    with an_end():
        Redactor()(piece * (1024 * 1024 // len(piece)))


def test_secrets_stand_out_of_any_neighbourhood() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJlLWlzLWhlcmU"
    for text in (f"x={token}", f"--{token}", f"/{token}/", f'"{token}"', f"a-b {token}\n"):
        assert "c2lnbmF0" not in Redactor()(text)
    assert redact.MASK in Redactor()("-" * 3 + "0a" * 30)


# -- read --------------------------------------------------------------------------------------


def refused(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "/config.yaml")
    return str(caught.value)


def test_a_configuration_makes_no_objects_and_runs_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    for tag in ("python/object/apply:os.system", "python/object/new:os.mkdir", "python/name:os"):
        text = f"version: v1\nhostRoot: !!{tag} ['touch {trap}']\n"
        try:
            found = parse(text, "/config.yaml")
            assert "Sequence" in type(found.entries["hostRoot"]).__name__
        except ConfigurationError:
            pass
    assert not trap.exists()


def test_a_few_lines_that_mean_billions_of_values_are_refused() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    for n in range(1, 12):
        lines.append(f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]")
    with an_end():
        assert f"at most {MAX_VALUES} values" in refused("\n".join(lines))
    assert "nest at most" in refused("a: &a [*a]")
    assert "nest at most" in refused("[" * 100_000)


@pytest.mark.parametrize("piece", ["- a\n", "[b, ", "{b: c}, ", "a:\n", "? ", "&a *a ", "\t"])
def test_a_large_configuration_is_given_up_on_early(piece: str) -> None:
    with an_end():
        refused(piece * ((1 << 20) // len(piece)))


def test_an_endless_configuration_is_read_so_far_and_no_further() -> None:
    with an_end(), pytest.raises(ConfigurationError, match="use at most 1 MiB"):
        read(Path("/dev/zero"))


def test_an_error_repeats_little_and_nothing_that_a_terminal_acts_upon() -> None:
    for text in ("\x1b[2J", "x" * 900_000, "\u202e", "a\nb", "\x9b"):
        error = str(ConfigurationError(f"/config.yaml:1: {text}", text, "use another"))
        assert error.isprintable()
        assert len(error) < 3000


def test_what_follows_the_equals_sign_of_a_label_cannot_begin_a_line(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "f")
    file.write({"moffett.ai/spu.product": "S30", "moffett.ai/spu.count": "3"})
    for line in file.path.read_text().splitlines():
        assert re.fullmatch(r"moffett\.ai/spu\.[a-z-]+=[A-Za-z0-9_.-]*", line)
