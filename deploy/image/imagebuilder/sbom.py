"""The bill of materials: what was put into an image, as SPDX 2.3 in JSON.

Made from what the build did, not from a look at the result: the Debian packages whose files
were copied and the wheels that were installed, with their archives' digests.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from .base import Package
from .licences import UNKNOWN, in_notice

CREATOR = "Tool: moffett-k8s-device-plugin-image-builder"
_PROJECT = "moffett-k8s-device-plugin"


@dataclass(frozen=True, slots=True)
class Component:
    """One package of the image.

    `kind` is the package URL's type: deb, pypi. `sha256` is that of the archive that was
    unpacked, in hexadecimal.
    """

    kind: str
    name: str
    version: str
    sha256: str
    license: str = UNKNOWN
    license_note: str = ""
    supplier: str = UNKNOWN
    qualifiers: Mapping[str, str] | None = None

    @property
    def url(self) -> str:
        """Return the package URL, https://github.com/package-url/purl-spec."""
        namespace = "debian/" if self.kind == "deb" else ""
        text = f"pkg:{self.kind}/{namespace}{quote(self.name)}@{quote(self.version)}"
        extra = "&".join(f"{key}={quote(value)}" for key, value in (self.qualifiers or {}).items())
        return text + (f"?{extra}" if extra else "")

    @property
    def identifier(self) -> str:
        """Return the name by which the document's relationships call it."""
        return _identifier(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class Subject:
    """The image itself; `digest` is its manifest's, ``sha256:...``."""

    version: str
    architecture: str
    digest: str
    created: datetime
    license: str


def debian_component(package: Package, release: str) -> Component:
    """Return a Debian package as a component."""
    names = ", ".join(in_notice(package.notice))
    note = f"Its notice is /usr/share/doc/{package.name}/copyright in the image"
    return Component(
        kind="deb",
        name=package.name,
        version=package.version,
        sha256=package.sha256,
        license=package.license,
        license_note=f"{note}; it names, for all of the source: {names}" if names else note,
        supplier="Organization: Debian",
        qualifiers={"arch": package.architecture, "distro": f"debian-{release}"},
    )


def document(subject: Subject, components: Sequence[Component]) -> dict[str, object]:
    """Return the SPDX document of an image."""
    created = subject.created.strftime("%Y-%m-%dT%H:%M:%SZ")
    name = f"{_PROJECT}-v{subject.version}-{subject.architecture}"
    image = _identifier("image", _PROJECT)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        # The name space SPDX has for those who own none; the same image has the same one.
        "documentNamespace": "https://spdx.org/spdxdocs/"
        f"{name}-{uuid.uuid5(uuid.NAMESPACE_OID, subject.digest)}",
        "creationInfo": {"created": created, "creators": [CREATOR]},
        "documentDescribes": [image],
        "packages": [_image(subject, image), *(_package(each) for each in components)],
        "relationships": list(_relationships(image, components)),
    }


def text(of: Mapping[str, object]) -> str:
    """Return a document as the file's text."""
    return json.dumps(of, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _image(subject: Subject, identifier: str) -> dict[str, object]:
    algorithm, _, value = subject.digest.partition(":")
    return {
        "SPDXID": identifier,
        "name": "moffett/k8s-device-plugin",
        "versionInfo": f"v{subject.version}",
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": False,
        "checksums": [{"algorithm": algorithm.upper(), "checksumValue": value}],
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": subject.license or UNKNOWN,
        "copyrightText": UNKNOWN,
        "externalRefs": [
            _reference(
                f"pkg:oci/k8s-device-plugin@{quote(subject.digest)}"
                f"?arch={subject.architecture}&tag=v{quote(subject.version)}"
            )
        ],
    }


def _package(component: Component) -> dict[str, object]:
    result: dict[str, object] = {
        "SPDXID": component.identifier,
        "name": component.name,
        "versionInfo": component.version,
        "supplier": component.supplier,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": component.sha256}],
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": component.license,
        "copyrightText": UNKNOWN,
        "externalRefs": [_reference(component.url)],
    }
    if component.license_note:
        result["licenseComments"] = component.license_note
    return result


def _relationships(image: str, components: Sequence[Component]) -> Iterable[dict[str, str]]:
    yield _relationship("SPDXRef-DOCUMENT", "DESCRIBES", image)
    plugin = _identifier("pypi", _PROJECT)
    for component in components:
        yield _relationship(image, "CONTAINS", component.identifier)
        if component.kind == "pypi" and component.identifier != plugin:
            yield _relationship(plugin, "DEPENDS_ON", component.identifier)


def _relationship(first: str, kind: str, second: str) -> dict[str, str]:
    return {"spdxElementId": first, "relationshipType": kind, "relatedSpdxElement": second}


def _reference(url: str) -> dict[str, str]:
    return {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": url,
    }


def _identifier(kind: str, name: str) -> str:
    return f"SPDXRef-{kind}-" + re.sub(r"[^a-zA-Z0-9.-]", "-", name)
