"""Put before the daemon by the campaign (PYTHONPATH): a wall clock that can be moved, and
deliberate defects. Does nothing unless the environment says so."""

import os

if "FAULTS_CLOCK" in os.environ:
    import mmap
    import struct
    import time

    with open(os.environ["FAULTS_CLOCK"], "r+b") as _file:
        _shared = mmap.mmap(_file.fileno(), 8)
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + struct.unpack_from("<q", _shared)[0]
    time.time_ns = lambda: _time_ns() + struct.unpack_from("<q", _shared)[0] * 10**9

if "FAULTS_MUTANT" in os.environ:
    import sys

    sys.path.insert(0, os.environ["FAULTS_ROOT"])
    from tests.faults.mutants import apply

    apply(os.environ["FAULTS_MUTANT"])
    sys.path.remove(os.environ["FAULTS_ROOT"])
