"""The CRI as kubelet speaks it, by curl, as there is no such client in Debian: gRPC is HTTP/2, a message a call.

Messages are dictionaries by the names of the API's fields; only the fields in `MESSAGES` are known. What is asked for
is the tests' business.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from screens import SECONDS

# Each message's fields: number and kind. A kind is `int`, `str`, or a message's name; in brackets it is repeated.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Value": {"value": (1, "int")},
    "Pair": {"key": (1, "str"), "value": (2, "str")},
    "Name": {"name": (1, "str"), "uid": (2, "str"), "namespace": (3, "str")},
    "Namespaces": {"network": (1, "int"), "pid": (2, "int"), "ipc": (3, "int")},
    "Seccomp": {"profile_type": (1, "int")},
    "PodSecurity": {"namespace_options": (1, "Namespaces")},
    "PodLinux": {"cgroup_parent": (1, "str"), "security_context": (2, "PodSecurity"), "sysctls": (3, "[Pair]")},
    "Pod": {
        "metadata": (1, "Name"),
        "hostname": (2, "str"),
        "log_directory": (3, "str"),
        "annotations": (7, "[Pair]"),
        "linux": (8, "PodLinux"),
    },
    "Image": {"image": (1, "str")},
    "Mount": {"container_path": (1, "str"), "host_path": (2, "str"), "readonly": (3, "int")},
    "Capabilities": {"add_capabilities": (1, "[str]"), "drop_capabilities": (2, "[str]")},
    "Resources": {
        "cpu_period": (1, "int"),
        "cpu_quota": (2, "int"),
        "cpu_shares": (3, "int"),
        "memory_limit_in_bytes": (4, "int"),
        "oom_score_adj": (5, "int"),
    },
    "Security": {
        "capabilities": (1, "Capabilities"),
        "privileged": (2, "int"),
        "namespace_options": (3, "Namespaces"),
        "run_as_user": (5, "Value"),
        "readonly_rootfs": (7, "int"),
        "supplemental_groups": (8, "[int]"),
        "no_new_privs": (11, "int"),
        "masked_paths": (13, "[str]"),
        "readonly_paths": (14, "[str]"),
        "seccomp": (15, "Seccomp"),
    },
    "Linux": {"resources": (1, "Resources"), "security_context": (2, "Security")},
    "Container": {
        "metadata": (1, "Name"),
        "image": (2, "Image"),
        "command": (3, "[str]"),
        "working_dir": (5, "str"),
        "envs": (6, "[Pair]"),
        "mounts": (7, "[Mount]"),
        "log_path": (11, "str"),
        "tty": (14, "int"),
        "linux": (15, "Linux"),
    },
    "Status": {
        "id": (1, "str"),
        "state": (3, "int"),
        "exit_code": (7, "int"),
        "reason": (10, "str"),
        "message": (11, "str"),
    },
    "Usage": {"usage": (2, "Value")},
    "Stats": {"cpu": (2, "Usage"), "memory": (3, "Usage")},
}
# Each call: its request's fields and its answer's.
CALLS: dict[str, tuple[dict[str, tuple[int, str]], dict[str, tuple[int, str]]]] = {
    "Version": ({"version": (1, "str")}, {"runtime_name": (2, "str"), "runtime_api_version": (4, "str")}),
    "RunPodSandbox": ({"config": (1, "Pod")}, {"pod_sandbox_id": (1, "str")}),
    "PodSandboxStatus": ({"pod_sandbox_id": (1, "str"), "verbose": (2, "int")}, {"info": (2, "[Pair]")}),
    "StopPodSandbox": ({"pod_sandbox_id": (1, "str")}, {}),
    "RemovePodSandbox": ({"pod_sandbox_id": (1, "str")}, {}),
    "CreateContainer": (
        {"pod_sandbox_id": (1, "str"), "config": (2, "Container"), "sandbox_config": (3, "Pod")},
        {"container_id": (1, "str")},
    ),
    "StartContainer": ({"container_id": (1, "str")}, {}),
    "StopContainer": ({"container_id": (1, "str"), "timeout": (2, "int")}, {}),
    "RemoveContainer": ({"container_id": (1, "str")}, {}),
    "ContainerStatus": (
        {"container_id": (1, "str"), "verbose": (2, "int")},
        {"status": (1, "Status"), "info": (2, "[Pair]")},
    ),
    "ContainerStats": ({"container_id": (1, "str")}, {"stats": (1, "Stats")}),
    "UpdateContainerResources": ({"container_id": (1, "str"), "linux": (2, "Resources")}, {}),
    "ExecSync": (
        {"container_id": (1, "str"), "cmd": (2, "[str]"), "timeout": (3, "int")},
        {"stdout": (1, "str"), "stderr": (2, "str"), "exit_code": (3, "int")},
    ),
}


class Refused(Exception):
    """The server's word on what went wrong."""


def ask(socket: str, call: str, **request: Any) -> dict[str, Any]:
    """One call of the runtime service. Raises Refused."""
    asked, answered = CALLS[call]
    data = encoded(request, asked)
    headers = Path(socket).with_name(f"{call}.headers")
    command = [
        *("curl", "--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket", socket),
        *("--header", "content-type: application/grpc", "--header", "te: trailers", "--dump-header", str(headers)),
        *("--data-binary", "@-", f"http://localhost/runtime.v1.RuntimeService/{call}"),
    ]
    done = subprocess.run(
        command, input=b"\0" + struct.pack(">I", len(data)) + data, capture_output=True, check=True, timeout=SECONDS
    )
    said = dict(line.split(": ", 1) for line in headers.read_text().splitlines() if ": " in line)
    if said["grpc-status"] != "0":
        raise Refused(unquote(said["grpc-message"]))
    return decoded(done.stdout[5:], answered)


def varint(number: int) -> bytes:
    """Seven bits a byte, the low ones first; negative numbers as 64 bits."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def encoded(message: dict[str, Any], fields: dict[str, tuple[int, str]]) -> bytes:
    out = b""
    for name, value in message.items():
        number, kind = fields[name]
        for one in value if kind.startswith("[") else [value]:
            if kind.strip("[]") == "int":
                out += varint(number << 3) + varint(int(one))
                continue
            data = one.encode() if kind.strip("[]") == "str" else encoded(one, MESSAGES[kind.strip("[]")])
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def decoded(data: bytes, fields: dict[str, tuple[int, str]]) -> dict[str, Any]:
    """The fields that are known; those that were left out have their kind's nothing."""
    empty = {"int": 0, "str": ""}
    found: dict[str, Any] = {
        name: [] if kind.startswith("[") else empty.get(kind, {}) for name, (_, kind) in fields.items()
    }
    names = {number: (name, kind) for name, (number, kind) in fields.items()}
    at = 0

    def take() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        tag = take()
        value: Any = take()
        if tag & 7 == 2:
            at, value = at + value, data[at : at + value]
        name, kind = names.get(tag >> 3, ("", ""))
        if not name:
            continue
        if isinstance(value, bytes):
            value = value.decode() if kind.strip("[]") == "str" else decoded(value, MESSAGES[kind.strip("[]")])
        found[name] = [*found[name], value] if kind.startswith("[") else value
    return found
