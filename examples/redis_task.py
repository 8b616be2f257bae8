"""The first program of containerd's guide for Go, in Python: pull redis, make a container of it, run it as a task,
wait, end it by SIGTERM, tell its exit status, delete everything.

python3 examples/redis_task.py [IMAGE]
"""

from __future__ import annotations

import sys

import cloche


def main(name: str = "docker.io/library/redis:alpine") -> int:
    """Returns the exit status of redis."""
    with cloche.Client() as client:
        image = client.images.pull(name)
        print(f"pulled {', '.join(image.tags)}: {image.size >> 20} MiB")

        # the container is an object with files and limits; nothing runs yet, and it is gone after this block
        with client.create(image.id, name="redis-server", memory="128m") as redis:
            redis.start()
            redis.wait_until(log="Ready to accept connections", port=6379)
            print(f"started process {redis.pid}: {redis.exec(['redis-cli', 'ping']).output.strip()}")

            redis.kill("SIGTERM")
            status = redis.wait()
            print(f"redis-server exited with status: {status}")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
