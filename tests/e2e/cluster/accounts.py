"""The API server as the plugin's own account sees it."""

from __future__ import annotations

import json
from pathlib import Path

from .cluster import Cluster
from .plugin import NAMESPACE, Plugin

TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def token_of(cluster: Cluster, plugin: Plugin) -> str:
    """Return the token that the plugin's pod has."""
    words = ("python3", "-c", f"print(open('{TOKEN_FILE}').read())")
    return cluster.exec(plugin.pod(), *words, namespace=NAMESPACE).stdout.strip()


def kubeconfig_of(cluster: Cluster, token: str, folder: Path) -> Path:
    """Return the administrator's kubeconfig, with a token in place of the credentials."""
    shown = cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout
    config = json.loads(shown)
    config["users"][0]["user"] = {"token": token}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path
