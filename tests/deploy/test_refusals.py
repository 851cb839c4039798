"""What cannot work is refused before it reaches a cluster, with the value's name."""

from __future__ import annotations

from typing import Any

import pytest

from .chart import HelmError, template

REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a value that does not exist": ({"granularty": "card"}, ["granularty", "not allowed"]),
    "one that does not exist, further in": (
        {"metrics": {"podMonitor": {"enable": True}}},
        ["/metrics/podMonitor", "'enable' not allowed"],
    ),
    "a choice there is not": ({"granularity": "core"}, ["/granularity", "'device', 'card'"]),
    "a text for a number": (
        {"metrics": {"port": "9400"}},
        ["/metrics/port", "want null or integer"],
    ),
    "a port there is not": ({"metrics": {"port": 70000}}, ["/metrics/port", "maximum"]),
    "a digest that is none": ({"image": {"digest": "sha256:abc"}}, ["/image/digest"]),
    "a tag in the repository": ({"image": {"repository": "a/b:v1"}}, ["/image/repository"]),
    "a path that is not absolute": ({"kubelet": {"rootDir": "kubelet"}}, ["/kubelet/rootDir"]),
    "one directory for what kubelets keep apart": (
        {"kubeletDir": "/data/kubelet"},
        ["kubeletDir"],
    ),
    "a resource name of Kubernetes' own": (
        {"resourceName": "node.kubernetes.io/spu"},
        ["/resourceName"],
    ),
    "a simulated card that is not known": ({"simulate": "2xZ99"}, ["/simulate"]),
    "a health rule that does not exist": (
        {"health": {"rules": {"nosuch": "off"}}},
        ["/health/rules", "'nosuch' not allowed"],
    ),
    "a limit of shares without shares": (
        {"sharing": {"failRequestsGreaterThanOne": True}},
        ["sharing.failRequestsGreaterThanOne has no effect without sharing.replicas"],
    ),
    "a DNS policy that needs more": ({"dnsPolicy": "None"}, ["/dnsPolicy"]),
    "a host path in the configuration file": (
        {"config": {"inline": {"kubeletDir": "/data/kubelet/device-plugins"}}},
        ["config.inline.kubeletDir is a path in the container", "kubelet.devicePluginDir"],
    ),
    "a host path in a section of it": (
        {"config": {"inline": {"nodes": [{"match": {"names": ["a"]}, "cdi": {"dir": "/x"}}]}}},
        ["config.inline.cdi.dir is a path in the container", "use cdi.dir"],
    ),
    "a quantity that is none": ({"resources": {"limits": {"memory": "1.2.3Mi"}}}, ["/resources"]),
    "a resource name without a domain": ({"resourceName": "spu"}, ["/resourceName"]),
    "cards that nobody makes": ({"simulate": "two S30"}, ["/simulate"]),
    "an environment that is a mapping": (
        {"extraEnv": {"A": "b"}},
        ["/extraEnv", "want null or array"],
    ),
    "a CPU limit in words": ({"resources": {"limits": {"cpu": "one"}}}, ["/resources/limits/cpu"]),
    "a setting of the file that does not exist": (
        {"config": {"inline": {"resources": [{"sharing": {"replcas": 4}}]}}},
        ["/config/inline/resources/0/sharing", "'replcas' not allowed"],
    ),
    "a serial number that YAML took for a number": (
        {"config": {"inline": {"resources": [{"select": {"serial": 2023243080101}}]}}},
        ["/config/inline/resources/0/select/serial", "want string"],
    ),
    "DRA before it was stable": (
        {"deviceApi": "dra"},
        ["DRA (deviceApi, dra.enabled) needs Kubernetes 1.34 or later"],
    ),
    "DRA that does not see who holds what": (
        {"deviceApi": "dra", "podResources": {"enabled": False}},
        ["needs podResources.enabled"],
    ),
    "DRA without its rights": (
        {"deviceApi": "dra", "dra": {"enabled": False}},
        ["deviceApi dra and dra.enabled false"],
    ),
    "a directory of the kubelet in the configuration file": (
        {"config": {"inline": {"pluginsRegistryDir": "/data/kubelet/plugins_registry"}}},
        ["config.inline.pluginsRegistryDir is a path in the container", "kubelet.rootDir"],
    ),
    "two configurations": (
        {"config": {"inline": {"events": True}, "existingConfigMap": "mine"}},
        ["config.inline and config.existingConfigMap are both set"],
    ),
    "scraping what is off": (
        {"metrics": {"enabled": False, "podMonitor": {"enabled": True}}},
        ["metrics.podMonitor.enabled needs metrics.enabled"],
    ),
    "scraping twice": (
        {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
        ["would scrape everything twice"],
    ),
    "SOLA from a host that is not seen": (
        {"injectSola": True, "hostRoot": {"mode": "none"}},
        ["injectSola needs hostRoot.mode parts or all"],
    ),
    "the API server without an account": (
        {"events": True, "serviceAccount": {"create": False}},
        ["need a service account"],
    ),
    "an address of the node in a pod's network": (
        {"metrics": {"host": "192.0.2.1"}},
        ["metrics.host is the address of a node: it needs hostNetwork"],
    ),
    "two pods for one port of a node": (
        {"hostNetwork": True, "updateStrategy": {"rollingUpdate": {"maxSurge": 1}}},
        ["maxSurge and hostNetwork"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(what: str) -> None:
    values, words = REFUSED[what]
    kubernetes = "1.33.0" if what == "DRA before it was stable" else "1.34.0"
    with pytest.raises(HelmError) as refusal:
        template(values, kubernetes)
    for word in words:
        assert word in str(refusal.value)
