"""The machine under the daemon: a fake host whose chips break as real ones do, and a
model that always knows what is true of each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.fakehost import FATAL, FakeHost

CARDS = 2
CHIPS = 3  # on a card
COOL, HOT = 45, 97
_CONFIG = bytes.fromhex("361f3070") + bytes(60)
_COLUMNS = (
    "index, pci.bus_id, serial, uuid, board, name, cores, driver_version, sola_version, "
    "memory.total, temperature, ecc.errors.uncorrected.volatile.device_memory"
)


@dataclass(slots=True)
class Chip:
    """What is true of one chip. `told_bad`: mx-smi may have spoken against it since it
    last spoke for it, so the daemon may hold it for sick while mx-smi is silent."""

    index: int
    bus_id: str
    card: int
    above: tuple[str, ...]
    node: str | None = None  # below /dev; None while the driver has made none
    present: bool = False
    driver: bool = True
    responding: bool = True
    aer_fatal: int = 0
    ecc: int = 0
    celsius: int = COOL
    listed: bool = True  # by mx-smi: its firmware is loaded
    told_bad: bool = False
    seen: bool = False  # by the daemon that runs now

    @property
    def bus_bad(self) -> bool:
        """Whether the bus alone shows that it is unfit."""
        bound = self.driver and self.node is not None
        return not (self.present and bound and self.responding and not self.aer_fatal)

    def smi_bad(self, *, ecc_counts: bool = True) -> bool:
        """Whether mx-smi, if it could be asked, would speak against it."""
        return bool(self.ecc and ecc_counts) or self.celsius > 90 or not self.listed


class Machine:
    """`chips` are the truth, and the files below `root` show it. Every method changes
    both; a chip that is not there keeps what is set for when it is back."""

    def __init__(self, root: Path) -> None:
        self.host = FakeHost(root)
        self.host.sola("3.5.3")
        self.chips: list[Chip] = []
        self._minor = 0
        self._mode = root / "mx-smi.mode"
        self._table = root / "mx-smi.table"
        self.smi_mode = "well"
        self.smi_installed = True  # and a program that can be run
        for card in range(CARDS):
            bus = 0x34 + 0x80 * card
            bridge = f"pci0000:{bus - 1:02x}"
            above = (bridge, f"0000:{bus - 1:02x}:01.0", f"0000:{bus:02x}:00.0")
            for place in range(CHIPS):
                port = f"0000:{bus + 1:02x}:{place:02x}.0"
                bus_id = f"0000:{bus + 2 + place:02x}:00.0"
                chip = Chip(card * CHIPS + place, bus_id, card, (*above, port))
                self.chips.append(chip)
        for chip in self.chips:
            self.add(chip)
        self.host.smi(_SCRIPT.format(mode=self._mode, table=self._table))
        self.set_smi("well")

    @property
    def smi(self) -> Path:
        return self.host.root / "usr/bin/mx-smi"

    @property
    def smi_well(self) -> bool:
        return self.smi_installed and self.smi_mode in _TRUTHFUL

    def on_card(self, card: int) -> list[Chip]:
        return [chip for chip in self.chips if chip.card == card]

    # -- what happens to chips ----------------------------------------------------------

    def remove(self, chip: Chip) -> None:
        if chip.present:
            chip.present = False
            self._drop_node_number(chip)
            self.host.remove(chip.bus_id)
            self._show()

    def add(self, chip: Chip) -> None:
        """On the bus (again): with the same bus id and another minor number."""
        if chip.present:
            return
        chip.node = f"spu{self._minor}"
        self._minor += 1
        path = self.host.function(
            chip.bus_id,
            chip.above,
            numa=chip.card,
            driver="moffett" if chip.driver else None,
            node=chip.node,
        )
        chip.present = chip.seen = True
        if not chip.responding:
            (path / "config").write_bytes(b"\xff" * 64)
        if chip.aer_fatal:
            (path / "aer_dev_fatal").write_text(FATAL.format(n=chip.aer_fatal))
        self._show()

    def reset(self, chip: Chip) -> None:
        """What a reboot of its card does to it."""
        chip.responding, chip.aer_fatal, chip.ecc, chip.celsius = True, 0, 0, COOL
        if chip.present:
            self.host.set(chip.bus_id, "config", _CONFIG)
            self.host.set(chip.bus_id, "aer_dev_fatal", FATAL.format(n=0))
        self._show()

    def set_config(self, chip: Chip, *, responding: bool) -> None:
        chip.responding = responding
        self._if_present(chip, "config", _CONFIG if responding else b"\xff" * 64)

    def set_aer(self, chip: Chip, count: int) -> None:
        chip.aer_fatal = count
        self._if_present(chip, "aer_dev_fatal", FATAL.format(n=count))

    def set_driver(self, chip: Chip, *, bound: bool) -> None:
        chip.driver = bound
        if chip.present:
            path = (self.host.sys / "bus/pci/devices" / chip.bus_id).resolve()
            (path / "driver").unlink(missing_ok=True)
            if bound:
                self.host.bind(path, "moffett")

    def set_measured(
        self,
        chip: Chip,
        *,
        ecc: int | None = None,
        celsius: int | None = None,
        listed: bool | None = None,
    ) -> None:
        chip.ecc = chip.ecc if ecc is None else ecc
        chip.celsius = chip.celsius if celsius is None else celsius
        chip.listed = chip.listed if listed is None else listed
        chip.told_bad = chip.told_bad or chip.smi_bad()
        self._show()

    # -- mx-smi --------------------------------------------------------------------------

    def set_smi(self, mode: str) -> None:
        """One of the cases of the script: `well`, or a way to misbehave."""
        self.smi_mode = mode
        if mode in _LYING:
            for chip in self.chips:
                chip.told_bad = True
        _put(self._mode, mode + "\n")
        self._show()

    def confirmed(self) -> None:
        """The daemon's list was seen to agree with a truthful mx-smi."""
        for chip in self.chips:
            chip.told_bad = chip.smi_bad()

    def _show(self) -> None:
        rows = [_COLUMNS, *(_row(chip) for chip in self.chips if chip.present and chip.listed)]
        if len(rows) == 1:  # as it says when there is nothing to list
            rows = [_COLUMNS]
        _put(self._table, "\n".join(rows) + "\n")

    def _if_present(self, chip: Chip, name: str, value: str | bytes) -> None:
        if chip.present:
            self.host.set(chip.bus_id, name, value)

    def _drop_node_number(self, chip: Chip) -> None:
        """sysfs takes the link of a device's number away with the device."""
        for link in (self.host.sys / "dev/char").iterdir():
            if f"/{chip.bus_id}/" in str(link.readlink()):
                link.unlink()


def _row(chip: Chip) -> str:
    serial = f"202324308010{chip.card}"
    domain, rest = chip.bus_id.split(":", 1)
    return (
        f"{chip.index}, {int(domain, 16):x}:{rest}, {serial}, "
        f"01000000-0000-0000-0000-00AKS{chip.index:07d}, 0x{chip.card + 1:03x}, 01S30-00A, 4, "
        f"3.5.2, 3.5.3, 20480 MiB, {chip.celsius} C, {chip.ecc}"
    )


def _put(path: Path, text: str) -> None:
    """Whole, so that a run of the script never sees half of it by accident."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


#: Ways in which mx-smi still says what is true.
_TRUTHFUL = frozenset({"well", "slow", "chatty"})
#: Ways in which it answers in form, and wrongly.
_LYING = frozenset({"half"})
SMI_FAULTS = (
    "slow", "chatty", "hang", "hang-with-child", "crash", "refuses", "garbage", "flood",
    "endless", "long-line", "half", "silent",
)  # fmt: skip
_SCRIPT = """
case $(cat '{mode}') in
well) exec cat '{table}' ;;
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
