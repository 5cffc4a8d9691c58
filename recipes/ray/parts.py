"""
A selection in parts on a Ray cluster, one actor a GPU (or CPU, without any), and the selection that reads them, on one
of them: it finds scores that were computed on such a device.

    pip install hf_dataselect[ray]
    python recipes/ray/parts.py 8 --config ifd --selection_cache_dir /shared/cache

The first argument is the number of parts, the others are those of `hf-dataselect select`. An actor that is lost, with
its machine or for lack of memory, is started again, and its part goes on.
"""

import sys

import ray
from ray.util import ActorPool

from hf_dataselect.cli.main import main


@ray.remote(max_restarts=2, max_task_retries=2)
class Part:
    """A process that computes parts, one after the other, or selects."""

    def run(self, argv: list[str]) -> None:
        try:
            main(["select", *argv])
        except SystemExit as left:  # which Ray takes for the end of an actor
            raise RuntimeError(f"hf-dataselect select {' '.join(argv)}: {left.__cause__ or left}") from None


def select_in_parts(parts: int, argv: list[str]) -> None:
    """Compute all parts on the cluster, then select there."""
    ray.init(ignore_reinit_error=True)
    there = ray.cluster_resources()
    kind = "GPU" if there.get("GPU") else "CPU"
    each_needs = {"num_gpus": int(kind == "GPU"), "num_cpus": int(kind == "CPU")}
    actors = [Part.options(**each_needs).remote() for _ in range(min(parts, int(there[kind])))]
    each = [[*argv, "--part", f"{number}/{parts}"] for number in range(1, parts + 1)]
    list(ActorPool(actors).map(lambda actor, given: actor.run.remote(given), each))
    ray.get(actors[0].run.remote(argv))


if __name__ == "__main__":
    select_in_parts(int(sys.argv[1]), sys.argv[2:])
