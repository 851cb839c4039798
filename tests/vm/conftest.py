"""Everything is in node/fixtures.py."""

pytest_plugins = ["node.fixtures"]
