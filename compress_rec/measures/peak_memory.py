"""How much memory it takes to load a model and encode with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from compress_rec.errors import CompressRecError
from compress_rec.measure import Measure, NotApplicable, Samples
from compress_rec.timed import encoder_of, requests
from compress_rec.trial import Ranker, Trial

STATUS = Path("/proc/self/status")
CHILD_LIMIT = 300


@dataclass(frozen=True)
class PeakMemory(Measure):
    """The growth of a fresh process's resident memory, at its highest, while it loads the saved model and encodes item texts.

    The process first imports everything that loading needs and multiplies two matrices, so that what is counted is the model's: its
    tensors, what loading them takes on top, and the activations of one batch. Weights are mapped from the file, and a page of it becomes
    resident when it is first read; every stored tensor is therefore read once, as serving does in time, or a large vocabulary would seem
    to cost nothing. One thread. Read from the kernel (``VmHWM``, set back before the model is loaded). The notes give what stays resident
    afterwards, and the level before.

    Edge cases: a ranker that encodes no text has none; neither has a system without /proc/self/status. The figure moves by a megabyte or
    two from run to run, with what the allocator keeps; taken once, it has no interval and decides no gate. Values: a single one.

    texts: item texts in the batch
    """

    name: ClassVar[str] = "peak_memory"
    group: ClassVar[str] = "Size"
    unit: ClassVar[str] = "bytes"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    summary: ClassVar[Literal["mean", "median", "p95", "p99", "only", "once"]] = "once"
    texts: int = 64

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """A single value."""
        variant = encoder_of(ranker, "peak memory of encoding")
        if not STATUS.exists():
            raise NotApplicable(f"{self.name} reads {STATUS}, which this system does not have: measure on Linux")
        texts = requests(variant, "item", trial, self.texts)
        with tempfile.TemporaryDirectory() as folder:
            variant.save(Path(folder) / "variant")
            found = _ask_child({"folder": str(Path(folder) / "variant"), "texts": texts}, variant.name)
        notes = {"resident": found["after"] - found["before"], "before": found["before"], "texts": len(texts), "threads": 1}
        return Samples((float(found["peak"] - found["before"]),), {}, trial.seed, notes)


def _ask_child(order: dict[str, Any], name: str) -> dict[str, int]:
    """Run ``child`` in a fresh interpreter that finds this very package, and return what it measured."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", f"from {__name__} import child; child()"]
    try:
        done = subprocess.run(
            command, input=json.dumps(order), capture_output=True, text=True, env=environment, timeout=CHILD_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as fault:
        raise CompressRecError(
            f"the process that measures the memory of '{name}' did not end within {CHILD_LIMIT} s: measure it on a freer machine"
        ) from fault
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CompressRecError(
            f"the process that measures the memory of '{name}' failed ({last}): is there enough memory for a second copy?"
        )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def child() -> None:
    """Read ``{"folder", "texts"}`` from standard input, load and encode, and print ``{"before", "peak", "after"}``, in bytes."""
    from compress_rec.recipe import RECIPES
    from compress_rec.variant import Variant

    order = json.load(sys.stdin)
    torch.set_num_threads(1)
    RECIPES.classes()  # imported when a plan is read: code, not the model
    torch.nn.functional.linear(torch.ones(64, 64), torch.ones(64, 64))  # the buffers of the matrix library
    reset_peak()
    before = memory("VmRSS")
    variant = Variant.load(order["folder"], replay=False)
    for tensor in variant.tensors().values():
        tensor.sum()
    variant.encode(order["texts"], "item", batch=len(order["texts"]))
    print(json.dumps({"before": before, "peak": memory("VmHWM"), "after": memory("VmRSS")}))


def reset_peak() -> None:
    """Set this process's highest resident size back to the present one (proc(5), clear_refs), or refuse where the kernel does not let us:
    the imports' own peak would be counted as the model's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as fault:
        raise CompressRecError(
            f"the peak of memory cannot be set back on this system ({fault}): leave peak_memory out of the study"
        ) from fault


def memory(field: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise CompressRecError(f"{STATUS} has no line {field}: leave peak_memory out of the study")
