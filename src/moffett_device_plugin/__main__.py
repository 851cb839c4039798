"""The program. Nothing is imported before `main` runs, which answers an interrupt at any
moment by ending quietly."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    try:
        from .commands.line import run

        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
