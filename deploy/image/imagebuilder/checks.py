"""Looking at a finished root: nothing that the plugin needs was left out.

And nothing was put in that can be run but Python and the plugin.

What runs nothing is for any architecture: every library that a program of the root is linked
with is there, and is for the same machine. And from inside, where its programs can be run:
every module of the plugin is imported, and so is every module of the standard library that is
named anywhere in it, in a function as well, and every extension module of the dependencies,
which may have a slow replacement that would be taken without a word. Then the commands that
need no hardware are run, as a user that owns nothing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from . import elf
from .application import PROGRAM, SITE
from .architecture import Architecture
from .contents import PYTHON
from .inside import can_enter, run_in

_PACKAGE = "moffett_device_plugin"

# What can be run in the image, besides the dynamic loader. No shell: whoever gets in finds none.
_PROGRAMS = {f"usr/bin/{PYTHON}", f"usr/bin/{PROGRAM}"}

_COMMANDS = (["--version"], ["--help"], ["devices", "--simulate", "2xS30"], ["demo"])

_IMPORTS = """\
import importlib, pkgutil, sys
sys.path.append("/{site}")
package = importlib.import_module("{package}")
names = [module.name for module in pkgutil.walk_packages(package.__path__, "{package}.")]
for name in [*names, *{named}]:
    if not name.endswith(".__main__"):
        importlib.import_module(name)
"""


def check(root: Path, architecture: Architecture) -> bool:
    """Check a root; exit with what is missing. Return whether its programs could be run."""
    faults = [*elf.faults(root, architecture.elf), *more_programs(root, architecture)]
    if faults:
        raise SystemExit("\n".join(f"build: {fault}" for fault in faults))
    if not can_enter(architecture):
        return False
    site = root / SITE
    named = sorted(library_modules(site / _PACKAGE) | extension_modules(site))
    program = _IMPORTS.format(site=SITE, package=_PACKAGE, named=named)
    python = [f"/usr/bin/{PYTHON}", "-ISB"]
    run_in(root, architecture, [*python, "-c", program])
    # The emulator runs programs, and no start scripts.
    start = [] if architecture.is_native else python
    for arguments in _COMMANDS:
        run_in(root, architecture, [*start, f"/usr/bin/{PROGRAM}", *arguments], as_nobody=True)
    return True


def more_programs(root: Path, architecture: Architecture) -> Iterator[str]:
    """Yield each file of a root that can be run and has no business there."""
    for path in sorted(root.rglob("*")):
        place = str(path.relative_to(root))
        if path.is_symlink() or not path.is_file() or not path.stat().st_mode & 0o111:
            continue
        if place not in _PROGRAMS and place != architecture.loader:
            yield f"/{place} is a program, and not one of the image's"


def library_modules(package: Path) -> set[str]:
    """Return the modules of the standard library that a package's source names."""
    return {
        name
        for path in package.rglob("*.py")
        for name in _imports(ast.parse(path.read_bytes()))
        if name.partition(".")[0] in sys.stdlib_module_names and name != "__future__"
    }


def extension_modules(site: Path) -> set[str]:
    """Return the modules below a folder that are shared libraries."""
    return {
        ".".join([*path.relative_to(site).parent.parts, path.name.partition(".")[0]])
        for path in site.rglob("*.so")
    }


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for other in node.orelse:
            yield from _imports(other)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imports(child)
