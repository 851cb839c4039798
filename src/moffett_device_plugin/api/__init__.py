"""Messages and constants of the kubelet's APIs: device plugins, pod-resources, and dynamic
resource allocation (DRA)."""

VERSION = "v1beta1"
HEALTHY = "Healthy"
UNHEALTHY = "Unhealthy"
KUBELET_SOCKET = "kubelet.sock"
#: The device manager's checkpoint, which the kubelet keeps across restarts.
KUBELET_CHECKPOINT = "kubelet_internal_checkpoint"

REGISTER = "/v1beta1.Registration/Register"
GET_OPTIONS = "/v1beta1.DevicePlugin/GetDevicePluginOptions"
LIST_AND_WATCH = "/v1beta1.DevicePlugin/ListAndWatch"
GET_PREFERRED_ALLOCATION = "/v1beta1.DevicePlugin/GetPreferredAllocation"
ALLOCATE = "/v1beta1.DevicePlugin/Allocate"
PRE_START_CONTAINER = "/v1beta1.DevicePlugin/PreStartContainer"

# -- dynamic resource allocation; the versions of a service, the newest first ------------

DRA_PLUGIN = "DRAPlugin"
GET_INFO = "/pluginregistration.Registration/GetInfo"
NOTIFY_REGISTRATION = "/pluginregistration.Registration/NotifyRegistrationStatus"

DRA_SERVICES = ("v1.DRAPlugin", "v1beta1.DRAPlugin")
HEALTH_SERVICES = ("v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth")


def prepare_path(service: str) -> str:
    """The path of NodePrepareResources in one of DRA_SERVICES."""
    return f"/k8s.io.kubelet.pkg.apis.dra.{service}/NodePrepareResources"


def unprepare_path(service: str) -> str:
    """The path of NodeUnprepareResources in one of DRA_SERVICES."""
    return f"/k8s.io.kubelet.pkg.apis.dra.{service}/NodeUnprepareResources"


def watch_health_path(service: str) -> str:
    """The path of NodeWatchResources in one of HEALTH_SERVICES."""
    return f"/{service}/NodeWatchResources"
