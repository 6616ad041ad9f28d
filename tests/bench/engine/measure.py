# SPDX-License-Identifier: MIT
"""One run of the engine in a cgroup, and what the kernel says of it.

1. A run's environment names the library only for the engine's own process:
   the shell, the sampler and this program never load it.
2. A run that fails is reported with what it wrote, never counted.
"""

import dataclasses
import json
import os
import shlex
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import common
from common import Failed


@dataclasses.dataclass
class Run:
    model: str
    limit: int
    pager: str = "none"		# none: without the library
    cold: bool = True
    count: int = 1		# processes at once, in one group
    env: dict = dataclasses.field(default_factory=dict)
    driver: tuple = ()		# more words for drive.mjs


class Bench:
    def __init__(self, args):
        self.args = args
        self.scratch = common.scratch(args.out)
        self.spill = f"{args.out}/spill"
        os.makedirs(self.spill, exist_ok=True)

    def info(self, model):
        return json.loads(common.command(
            "node", "tools/engine/drive.mjs", "--engine", self.args.engine,
            "--info", model))

    def drop(self, model):
        common.command("build/mkmodel", "--drop", model)

    def disk(self, model, missing):
        return common.disk(model, missing)

    def engine_argv(self, run, stats):
        argv = ["env", *common.preload(self.args.lib, run.pager, stats,
                                       self.spill)]
        argv += [f"{k}={v}" for k, v in run.env.items()]
        argv += ["node", "tools/engine/drive.mjs", "--engine",
                 self.args.engine, "--tokens", str(self.args.tokens),
                 "--threads", str(self.args.threads)]
        return argv + list(run.driver) + [run.model]

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
        return common.load_json(f"{self.scratch}/{name}")

    def run(self, run):
        """Returns the first process's figures, the group's, and "all"."""
        for name in os.listdir(self.scratch):
            os.unlink(f"{self.scratch}/{name}")
        if run.cold:
            self.drop(run.model)
        status, err, group = common.in_group(
            ["sh", "-c", self.script(run)], run.limit,
            f"{self.scratch}/group.json")
        every = [self.read(f"out{i}.json") for i in range(run.count)]
        if status or not all(e.get("tokens") for e in every):
            raise Failed(f"status {status}\n{err[-2000:]}", status, group)
        stats = [self.read(f"stats{i}.json") for i in range(run.count)]
        return {**every[0], **group, "all": every,
                "stats": stats, "stderr": err[-2000:]}
