"""features: what this runtime can do (runtime-spec, features.md and features-linux.md). Only what is really there."""

from __future__ import annotations

from cloche.kernel.capabilities import NAMES
from cloche.kernel.mounts import OPTION_NAMES
from cloche.kernel.namespaces import KINDS
from cloche.oci.seccomp import ARCHITECTURES, FLAGS, OPERATORS
from cloche.runtime.oci.state import SPEC_VERSION
from cloche.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
_ACTIONS = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP"]


def features() -> dict[str, Any]:
    """The document."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": _HOOKS,
        "mountOptions": sorted(OPTION_NAMES),
        "linux": {
            "namespaces": sorted(KINDS),
            "capabilities": list(NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted("SCMP_ACT_" + action for action in _ACTIONS),
                "operators": sorted("SCMP_CMP_" + operator for operator in OPERATORS),
                "archs": sorted("SCMP_ARCH_" + arch for arch in ARCHITECTURES),
                "knownFlags": sorted("SECCOMP_FILTER_FLAG_" + flag for flag in FLAGS),
                "supportedFlags": sorted("SECCOMP_FILTER_FLAG_" + flag for flag in FLAGS),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"org.cloche.version": VERSION},
        "potentiallyUnsafeConfigAnnotations": [],
    }
