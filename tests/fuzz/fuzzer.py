#!/usr/bin/env python3
"""Coverage-guided fuzzing of one target: TARGET=... fuzzer.py [LIBFUZZER-OPTION...] CORPUS...

Started by `run`, which has atheris in an environment of its own.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "src")]

with atheris.instrument_imports(include=["moffett_device_plugin", "yaml", "hpack"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    quiet = logging.getLogger("moffett_device_plugin")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    atheris.Setup(sys.argv, TARGETS[os.environ["TARGET"]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
