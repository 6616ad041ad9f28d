# SPDX-License-Identifier: MIT
"""What the kernel counts of this process, for the drivers in Python.

Figures between two moments are one read of /proc/self/io, of the group's file
(DEMO_FAILS names it, tools/cgroup.sh makes it) and of a clock.
"""

import os
import time


def field(path, name):
    """The number after NAME, or the only number there; 0 if there is none."""
    try:
        with open(path) as f:
            for line in f:
                words = line.split()
                if words[0] in (name, name + ":"):
                    return int(words[1])
                if len(words) == 1 and words[0].isdigit():
                    return int(words[0])
    except (OSError, TypeError):
        pass
    return 0


def counters():
    io = "/proc/self/io"
    return {"read": field(io, "read_bytes"), "written": field(io, "write_bytes"),
            "watched": field(os.environ.get("DEMO_FAILS"), "max"),
            "s": time.monotonic()}


def since(before):
    now = counters()
    return {key: now[key] - before[key] for key in now}
