"""What of Debian's packages is in the image: everything not named here stays out.

A module that the plugin turns out to need is named by the build's last check.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SUITE = "bookworm"
RELEASE = "12"
PYTHON = "python3.11"
# base-files has the licence texts that the other packages' notices refer to.
PACKAGES = (f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libstdc++6", "base-files")

# Packages of which at least one file is in the image, and the licence of those files (SPDX);
# the rest of what mmdebstrap unpacks (dpkg, perl's friends, compression, ...) is left behind.
KEPT_PACKAGES = {
    "libc6": "LGPL-2.1-or-later",
    "libexpat1": "MIT",
    "libffi8": "MIT",
    "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
    f"lib{PYTHON}-minimal": "Python-2.0",
    f"lib{PYTHON}-stdlib": "Python-2.0",
    "libssl3": "Apache-2.0",
    "libstdc++6": "GPL-3.0-or-later WITH GCC-exception-3.1",
    f"{PYTHON}-minimal": "Python-2.0",
    "zlib1g": "Zlib",
}

# Shared libraries, by soname, that Python, the extension modules below and the wheels link.
# protobuf's wheel asks for libstdc++, and falls back to Python, thirty times slower, without
# a word if it is not there. OpenSSL's two are for the API server (labels, events): `serve`
# keeps ssl out of the process otherwise.
LIBRARIES = (
    "libc.so.6",
    "libcrypto.so.3",
    "libdl.so.2",
    "libexpat.so.1",
    "libffi.so.8",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libssl.so.3",
    "libstdc++.so.6",
    "libutil.so.1",
    "libz.so.1",
)

# Extension modules that are kept; most others are built into the interpreter. No _hashlib:
# hashlib has its own SHA-2 and BLAKE2, and need not load OpenSSL for them.
EXTENSIONS = (
    "_asyncio",
    "_contextvars",
    "_ctypes",
    "_decimal",
    "_json",
    "_queue",
    "_ssl",
    "_typing",
    "mmap",
    "resource",
    "termios",
)

# Parts of the standard library that a device plugin has no use for.
DROPPED_MODULES = _words(
    """
    EXTERNALLY-MANAGED LICENSE.txt __hello__.py __phello__ _aix_support.py _bootsubprocess.py
    _distutils_system_mod.py _osx_support.py _pydecimal.py _pyio.py aifc.py antigravity.py
    asynchat.py asyncio/proactor_events.py asyncio/windows_events.py asyncio/windows_utils.py
    asyncore.py audioop bdb.py cProfile.py cgi.py cgitb.py chunk.py cmd.py code.py codeop.py
    concurrent/futures/process.py crypt.py curses dbm distutils doctest.py ensurepip
    fileinput.py ftplib.py graphlib.py html/entities.py html/parser.py http/cookiejar.py
    http/server.py idlelib imaplib.py imghdr.py imp.py lib2to3 logging/config.py
    logging/handlers.py mailbox.py mailcap.py modulefinder.py multiprocessing netrc.py
    nntplib.py optparse.py pdb.py pickletools.py pipes.py plistlib.py poplib.py profile.py
    pstats.py pty.py pyclbr.py pydoc.py pydoc_data rlcompleter.py shelve.py sitecustomize.py
    smtpd.py smtplib.py sndhdr.py socketserver.py sqlite3 statistics.py sunau.py symtable.py
    tabnanny.py telnetlib.py test this.py timeit.py tkinter tomllib trace.py turtle.py
    turtledemo unittest urllib/robotparser.py uu.py venv wave.py webbrowser.py wsgiref
    xdrlib.py xml xmlrpc zoneinfo
    """
)

# Text encodings that are kept: Unicode's, and those that a host's tools may print.
ENCODINGS = _words(
    """
    __init__ aliases ascii charmap cp1252 cp437 idna iso8859_1 latin_1 punycode
    raw_unicode_escape unicode_escape utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le
    utf_8 utf_8_sig
    """
)

# Any user may run the plugin; these are the two that have a name.
ETC = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

# Empty directories that a container's engine mounts on or a program expects.
FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "var/lib/kubelet/device-plugins",
           "var/lib/moffett-device-plugin")  # fmt: skip
