"""All that these tests take from the plugin's own package and from the other tests."""

from moffett_device_plugin import api
from moffett_device_plugin.fake_kubelet.kubelet import AdmissionError, FakeKubelet, Pod
from tests.support.fakehost import FakeHost

__all__ = ["AdmissionError", "FakeHost", "FakeKubelet", "Pod", "api"]
