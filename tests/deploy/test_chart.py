"""What the chart gives the plugin: no more than it needs, and what each value says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .chart import CHART, VALUES, HelmError, Objects, helm, rendered, template

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
DEFAULT_MOUNTS = {
    "/var/lib/kubelet/device-plugins": False,
    "/var/lib/kubelet/pod-resources": True,
    "/usr/local": True,
    "/run/moffett-device-plugin/telemetry": True,
    "/var/lib/moffett-device-plugin": False,
}
POLICY = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def test_the_default_is_two_daemonsets_without_rights() -> None:
    made = rendered()
    assert made.kinds() == {"DaemonSet", *POLICY}, "nothing of RBAC, no account"
    for part in (made, made.telemetry):
        assert part.pod["automountServiceAccountToken"] is False
        assert part.pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
        assert part.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": 0,
            "runAsUser": 0,
        }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & part.pod.keys()
    assert made.host_paths == DEFAULT_MOUNTS
    assert made.telemetry.host_paths == {
        "/run/moffett-device-plugin/telemetry": False,
        "/usr": True,
        "/lib": True,
        "/lib64": True,
        "/etc/ld.so.conf.d": True,
    }


def test_telemetry_has_the_resource_that_the_plugin_offers() -> None:
    made = rendered()
    assert made.environment["SPU_TELEMETRY_SOURCE"] == "socket"
    assert made.environment["SPU_MONITORING_UNITS"] == "1"
    telemetry = made.telemetry
    assert telemetry.container["args"] == ["telemetry"]
    limits = telemetry.container["resources"]["limits"]
    assert limits == {"memory": "256Mi", "moffett.ai/spu-monitoring": 1}
    folder = "/run/moffett-device-plugin/telemetry"
    assert made.mounts[folder]["readOnly"] is True
    assert "readOnly" not in telemetry.mounts[folder]
    renamed = {"config": {"inline": {"monitoring": {"resourceName": "a.io/watch", "units": 2}}}}
    made = rendered(renamed)
    assert made.telemetry.container["resources"]["limits"]["a.io/watch"] == 1
    assert (
        "'a.io/watch' in"
        in made.one("ValidatingAdmissionPolicy")["spec"]["validations"][0]["expression"]
    )


def test_neither_daemonset_selects_the_others_pods() -> None:
    made = rendered()
    for one, other in ((made, made.telemetry), (made.telemetry, made)):
        selector = one.one("DaemonSet")["spec"]["selector"]["matchLabels"]
        labels = other.one("DaemonSet")["spec"]["template"]["metadata"]["labels"]
        own = one.one("DaemonSet")["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= own.items()
        assert not selector.items() <= labels.items()


# Where the plugin has mx-smi by itself, or there is none.
OWN: dict[str, dict[str, Any]] = {
    "simulated": {"simulate": "2xS30", "telemetry": {"mode": "monitoring"}},
    "privileged profile": {"security": {"profile": "privileged"}},
    "host root": {"hostRoot": {"mode": "parts"}},
    "a command": {"mxSmi": {"command": "none"}},
    "the file": {"config": {"inline": {"telemetry": {"source": "none"}}}},
    "none": {"telemetry": {"mode": "none"}},
}


@pytest.mark.parametrize("values", OWN.values(), ids=OWN)
def test_where_the_plugin_runs_mx_smi_there_is_no_telemetry(values: dict[str, Any]) -> None:
    made = rendered(values)
    assert made.telemetry == []
    assert made.kinds() == {"DaemonSet"} | made.kinds() - POLICY - {"DaemonSet"}
    assert not {"SPU_TELEMETRY_SOURCE", "SPU_MONITORING_UNITS"} & made.environment.keys()


def test_privileged_telemetry_leaves_the_plugin_without_privileges() -> None:
    made = rendered({"telemetry": {"mode": "privileged"}})
    assert made.telemetry.container["securityContext"]["privileged"] is True
    assert made.telemetry.container["resources"]["limits"] == {"memory": "256Mi"}
    assert made.container["securityContext"]["privileged"] is False
    assert made.environment["SPU_TELEMETRY_SOURCE"] == "socket"
    assert "SPU_MONITORING_UNITS" not in made.environment


def test_other_namespaces_are_kept_from_the_monitoring_resource() -> None:
    values = {"namespaces": ["exporters"], "quotaNamespaces": ["team-a", "team-b"]}
    made = rendered({"monitoring": values})
    (selector,) = made.one("ValidatingAdmissionPolicy")["spec"]["matchConstraints"][
        "namespaceSelector"
    ]["matchExpressions"]
    assert selector["values"] == ["kube-system", "exporters"]
    quotas = [item for item in made if item["kind"] == "ResourceQuota"]
    assert [quota["metadata"]["namespace"] for quota in quotas] == ["team-a", "team-b"]
    hard = {"requests.moffett.ai/spu-monitoring": "0"}
    assert all(quota["spec"]["hard"] == hard for quota in quotas)
    assert not POLICY & rendered(kubernetes="1.29.0").kinds()
    assert not POLICY & rendered({"monitoring": {"policy": False}}).kinds()


def test_an_update_waits_for_no_node_without_an_spu() -> None:
    """Its pod stays Pending there, and helm --wait counts those that may be unavailable."""
    update = rendered().telemetry.one("DaemonSet")["spec"]["updateStrategy"]
    assert update["rollingUpdate"] == {"maxUnavailable": "100%"}


def test_the_default_update_leaves_no_gap() -> None:
    spec = rendered().one("DaemonSet")["spec"]
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["minReadySeconds"] > 0
    container = rendered().container
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}


@pytest.mark.parametrize("kubernetes", ["1.10.13", "1.20.2", "1.21.14"])
def test_releases_without_surge_get_none(kubernetes: str) -> None:
    strategy = rendered(kubernetes=kubernetes).one("DaemonSet")["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 1}


def test_seccomp_is_an_annotation_where_there_is_no_field() -> None:
    made = rendered(kubernetes="1.16.15")
    assert "securityContext" not in made.pod
    annotations = made.one("DaemonSet")["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"seccomp.security.alpha.kubernetes.io/pod": "runtime/default"}


# Each feature, and the host's paths that it adds: path -> whether read-only.
PATHS: dict[str, tuple[dict[str, Any], dict[str, bool]]] = {
    "CDI": ({"deviceListStrategy": ["cdi-cri"]}, {"/var/run/cdi": False}),
    "CDI for some nodes": (
        {
            "config": {
                "inline": {"nodes": [{"match": {"names": ["a"]}, "deviceListStrategy": "cdi-cri"}]}
            }
        },
        {"/var/run/cdi": False},
    ),
    "labels by NFD": (
        {"labels": {"sink": "nfd"}},
        {"/etc/kubernetes/node-feature-discovery/features.d": False},
    ),
    "labels by the API": ({"labels": {"sink": "api"}}, {}),
    "DRA": (
        {"deviceApi": "dra"},
        {"/var/run/cdi": False, "/var/lib/kubelet/plugins_registry": False},
    ),
    "DRA for some nodes": (
        {"config": {"inline": {"nodes": [{"match": {"names": ["a"]}, "deviceApi": "dra"}]}}},
        {"/var/run/cdi": False, "/var/lib/kubelet/plugins_registry": False},
    ),
    "events and condition": ({"events": True, "condition": True}, {}),
    "monitoring": ({"metrics": {"podMonitor": {"enabled": True}}}, {}),
}


@pytest.mark.parametrize("feature", PATHS)
def test_a_feature_adds_its_own_paths_only(feature: str) -> None:
    values, more = PATHS[feature]
    assert rendered(values).host_paths == {**DEFAULT_MOUNTS, **more}


def test_what_is_off_is_not_mounted() -> None:
    off = {"podResources": {"enabled": False}, "sola": {"mount": False}}
    made = rendered({**off, "telemetry": {"mode": "none"}})
    assert made.host_paths == {
        "/var/lib/kubelet/device-plugins": False,
        "/var/lib/moffett-device-plugin": False,
    }


def test_a_simulated_node_sees_nothing_of_the_host_but_the_kubelet() -> None:
    made = rendered({"simulate": "2xS30"})
    assert set(made.host_paths) == {
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet/pod-resources",
    }
    assert made.environment["SPU_SIMULATE"] == "2xS30"


def test_another_kubelet_directory_is_another_one_on_the_host_only() -> None:
    made = rendered({"kubelet": {"rootDir": "/data/kubelet"}})
    # A kubelet keeps its directory for plugins where it is, whatever its root.
    wanted = {"/var/lib/kubelet/device-plugins", "/data/kubelet/pod-resources"}
    assert wanted < made.host_paths.keys()
    assert {
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet/pod-resources",
    } < made.mounts.keys()


def test_the_host_root_is_read_only_in_every_mode() -> None:
    for values in (
        {"hostRoot": {"mode": "all"}},
        {"hostRoot": {"mode": "parts"}},
        {"injectSola": True},
        {"security": {"profile": "privileged"}},
    ):
        made = rendered(values)
        host = [mount for path, mount in made.mounts.items() if path.startswith("/host")]
        assert host and all(mount["readOnly"] for mount in host), values
        assert made.environment["SPU_HOST_ROOT"] == "/host"
        assert "/usr/local" not in made.mounts


def test_what_is_mounted_below_the_host_root_is_read_only_too() -> None:
    mount = rendered({"hostRoot": {"mode": "all"}}).mounts["/host"]
    assert mount["recursiveReadOnly"] == "IfPossible"
    # Kubernetes refuses both together.
    asked = {"mode": "all", "mountPropagation": "HostToContainer"}
    mount = rendered({"hostRoot": asked}).mounts["/host"]
    assert mount["mountPropagation"] == "HostToContainer"
    assert "recursiveReadOnly" not in mount


def test_the_privileged_profile_is_the_manuals() -> None:
    made = rendered({"security": {"profile": "privileged"}})
    assert made.container["securityContext"] == {"privileged": True, "runAsUser": 0}
    assert made.host_paths["/"] is True


def test_a_custom_profile_is_what_it_says_and_nothing_else() -> None:
    context = {"capabilities": {"add": ["SYS_ADMIN"]}}
    made = rendered({"security": {"profile": "custom", "containerSecurityContext": context}})
    assert made.container["securityContext"] == context
    assert "securityContext" not in made.pod


def test_a_change_of_root_adds_one_capability() -> None:
    made = rendered({"hostRoot": {"mode": "all", "chroot": True}})
    assert made.container["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["SYS_CHROOT"],
    }


Rule = tuple[str, str]
DRA_RIGHTS = {
    ("nodes", "get"),
    ("resourceclaims", "get"),
    *(("resourceslices", verb) for verb in ("list", "watch", "create", "patch", "delete")),
}
# Each feature, and all it may do: (resource, verb).
RIGHTS: dict[str, tuple[dict[str, Any], set[Rule]]] = {
    "labels": ({"labels": {"sink": "api"}}, {("nodes", "patch")}),
    "events": ({"events": True}, {("events", "create"), ("events", "patch")}),
    "condition": ({"condition": True}, {("nodes", "get"), ("nodes/status", "patch")}),
    "sections by label": (
        {"config": {"inline": {"nodes": [{"match": {"labels": {"a": "b"}}}]}}},
        {("nodes", "list"), ("nodes", "watch")},
    ),
    "sections by label in another ConfigMap": (
        {"config": {"existingConfigMap": "mine", "readsNodeLabels": True}},
        {("nodes", "list"), ("nodes", "watch")},
    ),
    "events by the file": (
        {"config": {"inline": {"nodes": [{"match": {"names": ["a"]}, "events": True}]}}},
        {("events", "create"), ("events", "patch")},
    ),
    "DRA": ({"deviceApi": "dra"}, DRA_RIGHTS),
    "DRA by the file": ({"config": {"inline": {"deviceApi": "dra"}}}, DRA_RIGHTS),
    "DRA for some devices": (
        {"config": {"inline": {"resources": [{"select": {"index": 0}, "deviceApi": "dra"}]}}},
        DRA_RIGHTS,
    ),
    "nodes that go back from DRA": ({"dra": {"enabled": True}}, DRA_RIGHTS),
}


def rights(made: Objects) -> set[Rule]:
    return {
        (resource, verb)
        for item in made
        if item["kind"] in ("ClusterRole", "Role")
        for rule in item["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("feature", RIGHTS)
def test_a_feature_brings_its_rights_and_no_others(feature: str) -> None:
    values, wanted = RIGHTS[feature]
    made = rendered(values)
    assert rights(made) == wanted
    account = made.one("ServiceAccount")["metadata"]["name"]
    assert made.pod["serviceAccountName"] == account
    assert made.pod["automountServiceAccountToken"] is True
    bindings = [item for item in made if item["kind"].endswith("RoleBinding")] + [
        item for item in made if item["kind"] == "ClusterRoleBinding"
    ]
    assert bindings
    for binding in bindings:
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account, "kube-system")


def test_a_driver_may_write_slices_of_its_own_node_only() -> None:
    made = rendered({"deviceApi": "dra", "telemetry": {"mode": "none"}})
    policy = made.one("ValidatingAdmissionPolicy")["spec"]
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert rule["resources"] == ["resourceslices"]
    assert rule["operations"] == ["CREATE", "UPDATE", "DELETE"]
    account = made.one("ServiceAccount")["metadata"]["name"]
    (condition,) = policy["matchConditions"]
    assert f"system:serviceaccount:kube-system:{account}" in condition["expression"]
    assert made.one("ValidatingAdmissionPolicyBinding")["spec"] == {
        "policyName": "spu-moffett-device-plugin-slices",
        "validationActions": ["Deny"],
    }
    # With the condition there is one for the Node, too, and each has its binding.
    both = rendered({"deviceApi": "dra", "condition": True, "telemetry": {"mode": "none"}})
    names = {
        kind: {item["metadata"]["name"] for item in both if item["kind"] == kind}
        for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    }
    assert len(set(map(frozenset, names.values()))) == 1
    assert len(names["ValidatingAdmissionPolicy"]) == 2


def test_the_manuals_pod_gets_its_devices_through_a_device_class() -> None:
    device_class = rendered({"deviceApi": "dra"}).one("DeviceClass")
    assert device_class["metadata"]["name"] == "spu.moffett.ai"
    assert device_class["spec"]["extendedResourceName"] == "moffett.ai/spu"
    only_claims = {"deviceApi": "dra", "dra": {"deviceClass": {"extendedResourceName": ""}}}
    assert "extendedResourceName" not in rendered(only_claims).one("DeviceClass")["spec"]
    none = {"deviceApi": "dra", "dra": {"deviceClass": {"create": False}}}
    assert "DeviceClass" not in rendered(none).kinds()


@pytest.mark.parametrize("values", VALUES)
def test_the_plugin_takes_every_variable_as_it_is_given(values: str) -> None:
    """The variables of the rendered container, given to the plugin itself."""
    made = rendered(VALUES[values])
    ours = {name: value for name, value in made.environment.items() if name.startswith("SPU_")}
    ours.pop("SPU_CONFIG", None)
    ours.pop("SPU_HOST_ROOT", None)
    done = subprocess.run(
        [sys.executable, "-m", "moffett_device_plugin", "config", "show"],
        env=ours,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ours:
        assert name in done.stdout, f"{name} says nothing"


def test_the_inline_configuration_is_one_that_the_plugin_takes(tmp_path: Path) -> None:
    text = rendered(VALUES["config"]).one("ConfigMap")["data"]["config.yaml"]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    command = [sys.executable, "-m", "moffett_device_plugin", "config", "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load(text)
    assert written["version"] == "v1"
    assert written["resources"][0]["select"]["serial"] == "2023243080101"


def test_a_changed_inline_configuration_replaces_pods_only_if_told_to() -> None:
    def template_of(value: bool, restart: bool) -> Any:
        values = {"config": {"inline": {"preStartCheck": value}, "restartOnChange": restart}}
        return rendered(values).one("DaemonSet")["spec"]["template"]

    assert template_of(True, False) == template_of(False, False)
    assert template_of(True, True) != template_of(False, True)


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ({}, "moffett/k8s-device-plugin:v0.2.0"),
        ({"tag": "v9"}, "moffett/k8s-device-plugin:v9"),
        (
            {"repository": "a.example:5000/moffett/x", "tag": "v9"},
            "a.example:5000/moffett/x:v9",
        ),
        ({"registry": "a.example:5000/"}, "a.example:5000/moffett/k8s-device-plugin:v0.2.0"),
        (
            {"tag": "v9", "digest": f"sha256:{'a' * 64}"},
            f"moffett/k8s-device-plugin@sha256:{'a' * 64}",
        ),
    ],
)
def test_the_image(image: dict[str, str], wanted: str) -> None:
    assert rendered({"image": image}).container["image"] == wanted


def test_what_a_parent_chart_says_for_all_holds_here() -> None:
    made = rendered(
        {
            "global": {"imageRegistry": "a.example", "imagePullSecrets": ["one"], "other": 1},
            "imagePullSecrets": [{"name": "two"}],
        }
    )
    assert made.container["image"].startswith("a.example/moffett/")
    assert made.pod["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]


def test_affinity_of_ones_own_stays_beside_that_of_nfd() -> None:
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    own = {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}
    affinity = {"nodeAffinity": {REQUIRED: own}}
    made = rendered({"nfd": {"affinity": True}, "affinity": affinity})
    plugin_config = made.pod["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert [{item["key"] for item in term["matchExpressions"]} for term in plugin_config] == [
        {"zone", "feature.node.kubernetes.io/pci-1200_1f36.present"},
        {"zone", "feature.node.kubernetes.io/pci-1f36.present"},
        {"zone", "moffett.ai/spu.present"},
    ]


def test_what_monitors_scrape_is_what_the_pods_offer() -> None:
    values = {"metrics": {"serviceMonitor": {"enabled": True}, "port": 9999}}
    made = rendered(values)
    (port,) = made.container["ports"]
    assert (port["name"], port["containerPort"]) == ("metrics", 9999)
    assert made.environment["SPU_METRICS_ADDRESS"] == ":9999"
    service, monitor = made.one("Service"), made.one("ServiceMonitor")
    labels = made.one("DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True
    assert endpoint["port"] in {item["name"] for item in service["spec"]["ports"]}


def test_rules_and_dashboard_arrive_whole() -> None:
    made = rendered(VALUES["monitoring"])
    names = {
        rule["alert"]
        for group in made.one("PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert {"SPUUnhealthy", "SPUPluginDown"} <= names
    (text,) = made.one("ConfigMap")["data"].values()
    assert json.loads(text)["panels"]


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("", None),
        ("https://docs.example/spu/", "https://docs.example/spu/alerts.html#spuunhealthy"),
    ],
)
def test_runbook_urls_have_the_base_of_the_values(base: str, url: str | None) -> None:
    made = rendered({"metrics": {"prometheusRule": {"enabled": True, "runbookUrl": base}}})
    urls = {
        rule["alert"]: rule["annotations"].get("runbook_url")
        for group in made.one("PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert urls["SPUUnhealthy"] == url


def test_without_metrics_there_is_no_port_and_no_probe() -> None:
    container = rendered({"metrics": {"enabled": False}}).container
    assert not {"ports", "livenessProbe", "readinessProbe"} & container.keys()


def test_another_program_on_the_nodes_port_does_not_end_the_plugin() -> None:
    made = rendered({"hostNetwork": True})
    assert "livenessProbe" not in made.container
    # It is told: the pod is not ready.
    assert made.container["readinessProbe"]["httpGet"]["port"] == "metrics"


def test_metrics_can_stay_on_the_node() -> None:
    made = rendered({"hostNetwork": True, "metrics": {"host": "127.0.0.1"}})
    assert made.environment["SPU_METRICS_ADDRESS"] == "127.0.0.1:9400"
    assert made.container["readinessProbe"]["httpGet"]["host"] == "127.0.0.1"


PLATFORMS = {path.stem: path for path in sorted((CHART.parent / "platforms").glob("*.yaml"))}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_values_of_a_platform_are_taken(platform: str) -> None:
    assert "DaemonSet" in rendered(PLATFORMS[platform]).kinds()


@pytest.mark.parametrize(
    ("platform", "root"),
    [
        ("k3s", "/var/lib/kubelet"),
        ("rke2", "/var/lib/kubelet"),
        ("microk8s", "/var/snap/microk8s/common/var/lib/kubelet"),
        ("k0s", "/var/lib/k0s/kubelet"),
    ],
)
def test_where_the_kubelet_of_a_platform_is(platform: str, root: str) -> None:
    paths = rendered(PLATFORMS[platform]).host_paths
    # Kubelets keep the sockets of plugins in one place, whatever their root is.
    assert {"/var/lib/kubelet/device-plugins", f"{root}/pod-resources"} <= paths.keys()
    values = {**yaml.safe_load(PLATFORMS[platform].read_text()), "deviceApi": "dra"}
    assert f"{root}/plugins_registry" in rendered(values).host_paths


@pytest.mark.parametrize("platform", ["talos", "bottlerocket", "gke"])
def test_nothing_is_created_on_a_read_only_root(platform: str) -> None:
    made = rendered(PLATFORMS[platform])
    created = {
        volume["hostPath"]["path"]
        for volume in made.pod["volumes"]
        if volume["hostPath"].get("type", "") not in ("", "Directory")
    }
    assert created == {"/var/lib/moffett-device-plugin"}  # /var/lib is writable on all of them


def test_openshift_gets_what_it_asks_for() -> None:
    made = rendered(PLATFORMS["openshift"])
    assert "SecurityContextConstraints" in made.kinds()
    options = made.container["securityContext"]["seLinuxOptions"]
    assert options == {"type": "container_device_plugin_t"}


def test_everything_that_is_given_arrives() -> None:
    made = rendered(VALUES["everything"])
    daemonset = made.one("DaemonSet")
    assert daemonset["metadata"]["namespace"] == "spu-system"
    assert daemonset["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "10%"}
    assert made.pod["priorityClassName"] == "system-cluster-critical"
    assert made.pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert made.container["args"] == ["serve", "--api-server", "https://192.0.2.2:6443"]
    assert {"name": "TZ", "value": "UTC"} in made.container["env"]
    assert made.mounts["/extra"] == {"name": "extra", "mountPath": "/extra"}
    assert made.container["resources"]["limits"] == {"cpu": 1, "memory": "512Mi"}
    assert made.environment["SPU_HEALTH"] == (
        "aer-fatal=2,ecc-corrected=off,link-degraded=on,over-temperature=95/85"
    )


def test_the_chart_is_packed_without_its_test_values(tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    (archive,) = tmp_path.glob("*.tgz")
    shown = helm("template", "spu", archive, "--kube-version", "1.34.0")
    assert "DaemonSet" in shown
    listing = subprocess.run(["tar", "tzf", archive], capture_output=True, text=True, check=True)
    assert "/ci/" not in listing.stdout
    assert "/files/rules.yaml" in listing.stdout


def test_a_kubernetes_without_device_plugins_is_refused() -> None:
    with pytest.raises(HelmError, match="kubeVersion"):
        template(kubernetes="1.9.0")


def paths_of(values: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every value and every mapping of values."""
    found = []
    for key, value in values.items():
        found.append((*above, key))
        if isinstance(value, dict):
            found += paths_of(value, (*above, key))
    return found


DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.fixture(scope="module")
def default() -> str:
    return template()


@pytest.mark.parametrize("path", paths_of(DEFAULTS), ids=".".join)
def test_a_null_is_the_default(path: tuple[str, ...], default: str) -> None:
    values: Any = None
    for key in reversed(path):
        values = {key: values}
    if path[0] == "telemetry" and path[1:2] == ("resources",) and len(path) > 2:
        resources = rendered(values).telemetry.container["resources"]
        assert resources != rendered().telemetry.container["resources"]
    elif path[:2] == ("resources", "limits") or path[:2] == ("resources", "requests"):
        # Within resources a null takes away what the chart would set.
        resources = rendered(values).container["resources"]
        assert resources != DEFAULTS["resources"]
    else:
        assert template(values) == default


def test_labels_of_ones_own_stand_beside_the_charts() -> None:
    own = {"app.kubernetes.io/name": "mine", "app.kubernetes.io/version": "mine", "team": "a"}
    monitor = {"enabled": True, "labels": {"team": "b", "app.kubernetes.io/component": "mine"}}
    text = template(
        {
            "commonLabels": own,
            "podLabels": {"name": "mine", "team": "c", "app.kubernetes.io/instance": "mine"},
            "metrics": {"serviceMonitor": monitor, "service": {"labels": {"team": "d"}}},
        }
    )
    made = Objects(item for item in yaml.load_all(text, Loader=_StrictLoader) if item)
    daemonset = made.one("DaemonSet")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    # What a selector needs is the chart's; everything else is the user's.
    assert daemonset["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert (labels["name"], labels["team"]) == ("mine", "c")
    assert made.one("ServiceMonitor")["metadata"]["labels"]["team"] == "b"
    assert made.one("Service")["metadata"]["labels"]["team"] == "d"
    assert daemonset["metadata"]["labels"]["app.kubernetes.io/version"] == "mine"
    assert daemonset["metadata"]["labels"]["app.kubernetes.io/name"] == "moffett-device-plugin"


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, as kustomize and Flux do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return super().construct_mapping(node, deep)


def test_a_surge_of_ones_own_is_one_that_kubernetes_takes() -> None:
    made = rendered({"updateStrategy": {"rollingUpdate": {"maxSurge": "10%"}}})
    strategy = made.one("DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": "10%", "maxUnavailable": 0}


def test_parts_of_the_host_whose_names_are_alike_do_not_collide() -> None:
    made = rendered({"hostRoot": {"mode": "parts", "parts": ["/a.b", "/a-b", "/A-b"]}})
    names = [volume["name"] for volume in made.pod["volumes"]]
    assert len(names) == len(set(names))


def test_quantities_as_kubernetes_writes_them() -> None:
    limits = {"memory": "128e6", "cpu": "0.5"}
    claims = [{"name": "spu"}]
    made = rendered({"resources": {"limits": limits, "claims": claims}})
    assert made.container["resources"]["limits"] == {"memory": 128e6, "cpu": "0.5"}
    assert made.container["resources"]["claims"] == claims


def test_openshift_gets_its_constraints_and_who_may_use_them() -> None:
    made = rendered({"openshift": {"securityContextConstraints": True}})
    constraints = made.one("SecurityContextConstraints")
    assert constraints["allowHostDirVolumePlugin"] is True
    assert constraints["allowPrivilegedContainer"] is False
    assert constraints["requiredDropCapabilities"] == ["ALL"]
    (rule,) = made.one("Role")["rules"]
    assert rule["resourceNames"] == [constraints["metadata"]["name"]]
    (subject,) = made.one("RoleBinding")["subjects"]
    assert subject["name"] == made.pod["serviceAccountName"]
    more = ["--api-versions", "security.openshift.io/v1"]
    assert "SecurityContextConstraints" in template(more=more)


def test_a_namespace_of_ones_own_may_have_pods_of_a_system_priority_class() -> None:
    made = Objects(item for item in yaml.safe_load_all(template(namespace="spu")) if item)
    selector = made.one("ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"]
    assert selector[0]["values"] == [made.pod["priorityClassName"]]
    assert "ResourceQuota" not in rendered().kinds()
    own = template({"priorityClassName": "mine"}, namespace="spu")
    assert "ResourceQuota" not in own


def test_metrics_are_reached_only_from_where_they_may_be() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    made = rendered({"networkPolicy": {"enabled": True, "from": peers}})
    policy = made.one("NetworkPolicy")["spec"]
    assert policy["ingress"] == [{"ports": [{"port": "metrics", "protocol": "TCP"}], "from": peers}]
    labels = made.one("DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    silent = rendered({"networkPolicy": {"enabled": True}, "metrics": {"enabled": False}})
    assert "ingress" not in silent.one("NetworkPolicy")["spec"]


@pytest.mark.parametrize("values", [{"labels": {"sink": "api"}}, {"condition": True}])
def test_a_right_to_change_nodes_is_bound_to_the_pods_own(values: dict[str, Any]) -> None:
    values = {**values, "telemetry": {"mode": "none"}}  # which has a policy of its own
    made = rendered(values)
    policy = made.one("ValidatingAdmissionPolicy")
    account = made.one("ServiceAccount")["metadata"]
    (condition,) = policy["spec"]["matchConditions"]
    assert f"{account['namespace']}:{account['name']}" in condition["expression"]
    binding = made.one("ValidatingAdmissionPolicyBinding")["spec"]
    assert binding["policyName"] == policy["metadata"]["name"]
    assert "ValidatingAdmissionPolicy" not in rendered(values, "1.29.0").kinds()
    events = {"events": True, "telemetry": {"mode": "none"}}
    assert "ValidatingAdmissionPolicy" not in rendered(events).kinds()


def test_an_selinux_type_is_the_containers() -> None:
    made = rendered({"security": {"seLinuxType": "spc_t"}})
    assert made.container["securityContext"]["seLinuxOptions"] == {"type": "spc_t"}
