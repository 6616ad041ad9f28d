# SPDX-License-Identifier: MIT
"""One run of the engine in a cgroup, and what the kernel says of it.

1. A run's environment names the library only for the engine's own process:
   the shell, the sampler and this program never load it.
2. A run that fails is reported with what it wrote, never counted.
3. Whatever ends this program ends the run first, by a signal that lets the
   group be removed.
"""

import atexit
import dataclasses
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

MIB = 1 << 20
DROPPED = 2		# passes: the prompt, and the one that is learned from
RUN_TIMEOUT = 900


def median(values):
    return statistics.median(values[DROPPED:] or values)


def command(*argv):
    """Runs a program that must succeed. Returns its stdout."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"bench: {argv[0]} failed ({done.returncode})")
    return done.stdout


@dataclasses.dataclass
class Run:
    model: str
    limit: int
    pager: str = "none"		# none: without the library
    cold: bool = True
    count: int = 1		# processes at once, in one group
    env: dict = dataclasses.field(default_factory=dict)


class Failed(Exception):
    pass


def call(argv):
    """Runs a program to its end, or ends it. Returns (status, stderr)."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, text=True,
                          stderr=subprocess.PIPE) as child:
        try:
            _, err = child.communicate(timeout=RUN_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.terminate()
            raise Failed(f"no end after {RUN_TIMEOUT} s") from None
        except BaseException:
            child.terminate()
            raise
        return child.returncode, err


class Bench:
    def __init__(self, args):
        self.args = args
        self.scratch = tempfile.mkdtemp(prefix="run-", dir=args.out)
        atexit.register(shutil.rmtree, self.scratch, ignore_errors=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def info(self, model):
        return json.loads(command(
            "node", "tools/engine/drive.mjs", "--engine", self.args.engine,
            "--info", model))

    def drop(self, model):
        command("build/mkmodel", "--drop", model)

    def disk(self, model, missing):
        """Bytes per second of random 2 MiB reads of the file."""
        return float(command("build/bench/diskbw", model,
                             str(max(int(missing), 256 * MIB))))

    def engine_argv(self, run, stats):
        argv = ["env"]
        if run.pager != "none":
            argv += [f"LD_PRELOAD={os.path.abspath(self.args.lib)}",
                     f"OFFLOAD_PAGER={run.pager}",
                     f"OFFLOAD_STATS={os.path.abspath(stats)}"]
        argv += [f"{k}={v}" for k, v in run.env.items()]
        argv += ["node", "tools/engine/drive.mjs", "--engine",
                 self.args.engine, "--tokens", str(self.args.tokens),
                 "--threads", str(self.args.threads)]
        return argv + ["--no-mmap"] * self.args.no_mmap + [run.model]

    def script(self, run):
        """Shell text that runs the processes and fails if one of them does."""
        out = []
        for i in range(run.count):
            argv = self.engine_argv(run, f"{self.scratch}/stats{i}.json")
            out.append(f"{shlex.join(argv)} >{self.scratch}/out{i}.json & "
                       f"p{i}=$!")
        waits = [f"wait $p{i} || bad=$?" for i in range(run.count)]
        return "\n".join(out + waits + ["exit ${bad:-0}"])

    def read(self, name):
        try:
            with open(f"{self.scratch}/{name}") as f:
                return json.load(f)
        except (OSError, ValueError):
            return {}

    def run(self, run):
        """Returns the first process's figures, the group's, and "all"."""
        for name in os.listdir(self.scratch):
            os.unlink(f"{self.scratch}/{name}")
        if run.cold:
            self.drop(run.model)
        status, err = call(
            ["tools/cgroup.sh", "run", "--limit", str(int(run.limit)),
             "--report", f"{self.scratch}/group.json", "--",
             "sh", "-c", self.script(run)])
        every = [self.read(f"out{i}.json") for i in range(run.count)]
        if status or not all(e.get("tokens") for e in every):
            raise Failed(f"status {status}\n{err[-2000:]}")
        stats = [self.read(f"stats{i}.json") for i in range(run.count)]
        return {**every[0], **self.read("group.json"), "all": every,
                "stats": stats, "stderr": err[-2000:]}
