"""The machine under the daemon: a fake host whose devices fail as real ones do, and a model
with the true state of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.fakehost import FATAL, FakeHost

CARDS = 2
DEVICES_PER_CARD = 3  # on a card
COOL, HOT = 45, 97
_CONFIG = bytes.fromhex("361f3070") + bytes(60)
_COLUMNS = (
    "index, pci.bus_id, serial, uuid, board, name, cores, driver_version, sola_version, "
    "memory.total, temperature, ecc.errors.uncorrected.volatile.device_memory"
)


@dataclass(slots=True)
class Device:
    """The true state of one device. `reported_failed`: mx-smi may have reported it as failed
    since it last reported it as healthy; while mx-smi does not answer, it may be unhealthy."""

    index: int
    bus_id: str
    card: int
    above: tuple[str, ...]
    node: str | None = None  # below /dev; None while the driver has created none
    present: bool = False
    driver: bool = True
    responding: bool = True
    aer_fatal: int = 0
    ecc: int = 0
    celsius: int = COOL
    listed: bool = True  # by mx-smi: its firmware is loaded
    reported_failed: bool = False
    seen: bool = False  # by the daemon that runs now

    @property
    def failed_on_bus(self) -> bool:
        """Whether the bus alone shows that it has failed."""
        bound = self.driver and self.node is not None
        return not (self.present and bound and self.responding and not self.aer_fatal)

    def failed_by_smi(self, *, ecc_counts: bool = True) -> bool:
        """Whether mx-smi, if it answered, would report it as failed."""
        return bool(self.ecc and ecc_counts) or self.celsius > 90 or not self.listed


class Machine:
    """`devices` are the true state, and the files below `root` show it. Every method changes
    both; a device that is not present keeps its values until it is back."""

    def __init__(self, root: Path) -> None:
        self.host = FakeHost(root)
        self.host.sola("3.5.3")
        self.devices: list[Device] = []
        self._minor = 0
        self._mode = root / "mx-smi.mode"
        self._table = root / "mx-smi.table"
        self.smi_mode = "ok"
        self.smi_installed = True  # and a program that can be run
        for card in range(CARDS):
            bus = 0x34 + 0x80 * card
            bridge = f"pci0000:{bus - 1:02x}"
            above = (bridge, f"0000:{bus - 1:02x}:01.0", f"0000:{bus:02x}:00.0")
            for place in range(DEVICES_PER_CARD):
                port = f"0000:{bus + 1:02x}:{place:02x}.0"
                bus_id = f"0000:{bus + 2 + place:02x}:00.0"
                device = Device(card * DEVICES_PER_CARD + place, bus_id, card, (*above, port))
                self.devices.append(device)
        for device in self.devices:
            self.add(device)
        self.host.smi(_SCRIPT.format(mode=self._mode, table=self._table))
        self.set_smi("ok")

    @property
    def smi(self) -> Path:
        return self.host.root / "usr/bin/mx-smi"

    @property
    def smi_ok(self) -> bool:
        return self.smi_installed and self.smi_mode in _TRUTHFUL

    def on_card(self, card: int) -> list[Device]:
        return [device for device in self.devices if device.card == card]

    # -- what happens to devices ----------------------------------------------------------

    def remove(self, device: Device) -> None:
        if device.present:
            device.present = False
            self._drop_node_number(device)
            self.host.remove(device.bus_id)
            self._show()

    def add(self, device: Device) -> None:
        """Adds it to the bus (again): with the same bus ID and another minor number."""
        if device.present:
            return
        device.node = f"spu{self._minor}"
        self._minor += 1
        path = self.host.function(
            device.bus_id,
            device.above,
            numa=device.card,
            driver="moffett" if device.driver else None,
            node=device.node,
        )
        device.present = device.seen = True
        if not device.responding:
            (path / "config").write_bytes(b"\xff" * 64)
        if device.aer_fatal:
            (path / "aer_dev_fatal").write_text(FATAL.format(n=device.aer_fatal))
        self._show()

    def reset(self, device: Device) -> None:
        """The effects of a reboot of its card."""
        device.responding, device.aer_fatal, device.ecc, device.celsius = True, 0, 0, COOL
        if device.present:
            self.host.set(device.bus_id, "config", _CONFIG)
            self.host.set(device.bus_id, "aer_dev_fatal", FATAL.format(n=0))
        self._show()

    def set_config(self, device: Device, *, responding: bool) -> None:
        device.responding = responding
        self._if_present(device, "config", _CONFIG if responding else b"\xff" * 64)

    def set_aer(self, device: Device, count: int) -> None:
        device.aer_fatal = count
        self._if_present(device, "aer_dev_fatal", FATAL.format(n=count))

    def set_driver(self, device: Device, *, bound: bool) -> None:
        device.driver = bound
        if device.present:
            path = (self.host.sys / "bus/pci/devices" / device.bus_id).resolve()
            (path / "driver").unlink(missing_ok=True)
            if bound:
                self.host.bind(path, "moffett")

    def set_measured(
        self,
        device: Device,
        *,
        ecc: int | None = None,
        celsius: int | None = None,
        listed: bool | None = None,
    ) -> None:
        device.ecc = device.ecc if ecc is None else ecc
        device.celsius = device.celsius if celsius is None else celsius
        device.listed = device.listed if listed is None else listed
        device.reported_failed = device.reported_failed or device.failed_by_smi()
        self._show()

    # -- mx-smi --------------------------------------------------------------------------

    def set_smi(self, mode: str) -> None:
        """One of the cases of the script: `ok`, or a fault."""
        self.smi_mode = mode
        if mode in _LYING:
            for device in self.devices:
                device.reported_failed = True
        _put(self._mode, mode + "\n")
        self._show()

    def confirmed(self) -> None:
        """The daemon's list agreed with an mx-smi that reports the truth."""
        for device in self.devices:
            device.reported_failed = device.failed_by_smi()

    def _show(self) -> None:
        rows = [
            _COLUMNS,
            *(_row(device) for device in self.devices if device.present and device.listed),
        ]
        if len(rows) == 1:  # as it prints when there is nothing to list
            rows = [_COLUMNS]
        _put(self._table, "\n".join(rows) + "\n")

    def _if_present(self, device: Device, name: str, value: str | bytes) -> None:
        if device.present:
            self.host.set(device.bus_id, name, value)

    def _drop_node_number(self, device: Device) -> None:
        """sysfs removes the link of a device's number with the device."""
        for link in (self.host.sys / "dev/char").iterdir():
            if f"/{device.bus_id}/" in str(link.readlink()):
                link.unlink()


def _row(device: Device) -> str:
    serial = f"202324308010{device.card}"
    domain, rest = device.bus_id.split(":", 1)
    return (
        f"{device.index}, {int(domain, 16):x}:{rest}, {serial}, "
        f"01000000-0000-0000-0000-00AKS{device.index:07d}, 0x{device.card + 1:03x}, 01S30-00A, 4, "
        f"3.5.2, 3.5.3, 20480 MiB, {device.celsius} C, {device.ecc}"
    )


def _put(path: Path, text: str) -> None:
    """Atomically, so that the script never reads half of it by accident."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


#: With these mx-smi still reports the truth.
_TRUTHFUL = frozenset({"ok", "slow", "chatty"})
#: With these its table is valid, and wrong.
_LYING = frozenset({"half"})
SMI_FAULTS = (
    "slow", "chatty", "hang", "hang-with-child", "crash", "refuses", "garbage", "flood",
    "endless", "long-line", "half", "silent",
)  # fmt: skip
_SCRIPT = """
case $(cat '{mode}') in
ok) exec cat '{table}' ;;
slow) sleep 0.4; exec cat '{table}' ;;
chatty) echo 'libmfml: warning: no lock' >&2; exec cat '{table}' ;;
hang) exec sleep 600 ;;
hang-with-child) sleep 600 & trap '' TERM; wait ;;
crash) kill -SEGV $$ ;;
refuses) echo 'cannot open device'; exit 3 ;;
garbage) exec head -c 3000 /dev/urandom ;;
flood) exec head -c 8000000 /dev/zero ;;
endless) while :; do cat '{table}'; done ;;
long-line) head -c 900000 /dev/zero | tr '\\0' ' '; exec cat '{table}' ;;
half) exec head -c 350 '{table}' ;;
silent) exit 0 ;;
esac
"""

Mend = Callable[[], object]
