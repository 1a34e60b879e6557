"""The facts of the machine and the installation, and the sentences for the doctor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compress_rec import environment, op

PACKAGE = Path(environment.__file__).parent


def test_facts_are_json_and_true() -> None:
    facts = environment.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["threads"] == torch.get_num_threads()
    assert 1 <= facts["cores"] <= facts["processors"] == os.cpu_count()
    assert facts["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert facts["tier"] == op.tier()
    assert set(facts["ops"]) == set(op.ops())
    assert facts["ops"]["int8_linear"]["backend"] == "reference"
    assert facts["ops"]["int8_linear"]["fallback"]
    assert facts["cpu"]


def test_every_sentence_is_one() -> None:
    told = environment.explain()
    assert all(line[0].isalnum() and line.endswith(".") and "None" not in line for line in told)
    for name in op.ops():
        assert any(line.startswith(f"{name} runs on {op.backend(name)}") for line in told)


@pytest.mark.parametrize(
    ("torch_cuda", "devices", "nvcc", "built", "served", "sentence"),
    [
        (None, [], None, "no CUDA kernels were built: nvcc is not on PATH", (), "torch was built without CUDA, so everything runs on the "
         "CPU (no CUDA kernels were built: nvcc is not on PATH)."),
        ("13.0", [], "/nvcc", None, (), "torch was built for CUDA 13.0, but no device is there, so everything runs on the CPU (nothing is "
         "recorded about CUDA kernels)."),
        ("13.0", ["H100"], None, "no CUDA kernels were built: nvcc is not on PATH", (), "torch sees H100 (CUDA 13.0): no CUDA kernels were "
         "built: nvcc is not on PATH; every op runs on its reference there; to change that, install the CUDA toolkit, put nvcc on PATH and "
         "install the package again."),
        ("13.0", ["H100"], "/nvcc", "CUDA kernels were built", ("cosine_top_k", "low_rank_linear"), "torch sees H100 (CUDA 13.0): CUDA "
         "kernels were built; cosine_top_k, low_rank_linear run on them there, the other ops on their references."),
    ],
)  # fmt: skip
def test_what_became_of_cuda_is_said(
    monkeypatch: pytest.MonkeyPatch,
    torch_cuda: str | None,
    devices: list[str],
    nvcc: str | None,
    built: str | None,
    served: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.setattr(environment, "_on_cuda", lambda name: name in served)
    facts = {"torch": torch_cuda, "devices": devices, "nvcc": nvcc}
    assert environment._explain_cuda(replace(environment.environment(), cuda=facts, build={"cuda": built})) == sentence


def test_the_forced_reference_is_said() -> None:
    with op.force("reference"):
        told = environment.explain()
    assert any(line.startswith("cosine_top_k runs on reference: ") for line in told)


def test_what_compile_does_here_is_said() -> None:
    def said() -> str:
        return next(sentence for sentence in environment.explain() if "Variant.compile()" in sentence)

    with op.force("reference"):
        assert said() == "A whole encoder, after Variant.compile(), is left to torch's modules, for the same reason."
    if "avx2" in op.tiers():
        with op.force("avx2"):
            assert said() == "A whole encoder, after Variant.compile(), runs compiled."


def test_a_package_without_its_extension_works_and_says_why(tmp_path: Path) -> None:
    """A copy of the package with no compiled file, as an installation without a compiler leaves it."""
    copy = shutil.copytree(PACKAGE, tmp_path / "compress_rec", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (copy / "_build.json").write_text(json.dumps({"built": False, "reason": "no C++ compiler was found", "compiler": None, "cuda": "none"}))
    script = (
        # an editable install of the checkout would hand over its own compiled module
        "import sys\n"
        "sys.meta_path[:] = [each for each in sys.meta_path if not getattr(each, '__module__', '').startswith('__editable__')]\n"
        "import torch\n"
        "from compress_rec import environment, op\n"
        "from compress_rec.index import CosineIndex\n"
        "print(op.tiers(), op.backend('cosine_top_k'))\n"
        "print(CosineIndex(torch.eye(3)).search(torch.tensor([[0., 2., 1.]]), 2)[1].tolist())\n"
        "print('\\n'.join(environment.explain()))\n"
        "try:\n"
        "    op.use('avx2')\n"
        "except Exception as fault:\n"
        "    print(fault)\n"
    )
    told = run_python(script, tmp_path).stdout
    assert "('reference',) reference\n[[1, 2]]\n" in told
    reason = "the compiled extension was not built (no C++ compiler was found)"
    assert f"No compiled kernel can run: {reason}." in told
    assert f"the instruction tier 'avx2' cannot be used: {reason}; ask for one of reference" in told
    assert "results carry no commit" in told


def test_the_tier_is_read_from_the_environment() -> None:
    script = "from compress_rec import op; print(op.tier(), op.backend('cosine_top_k'))"
    assert run_python(script, PACKAGE.parent, COMPRESS_REC_ISA="reference").stdout == "reference reference\n"
    refused = run_python(script, PACKAGE.parent, check=False, COMPRESS_REC_ISA="sse9")
    assert refused.returncode != 0
    assert "there is no instruction tier called 'sse9'" in refused.stderr


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed, so there is no commit to find")
def test_the_commit_is_that_of_the_checkout_which_tracks_the_package(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null")
        return subprocess.run(("git", *who, "-C", str(tmp_path), *arguments), check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "__init__.py").write_text("")
    assert environment._commit(tmp_path) is None
    git("init", "-q")
    assert environment._commit(tmp_path) is None  # inside a checkout that does not track it
    git("add", "__init__.py")
    git("commit", "-q", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert environment._commit(tmp_path) == head
    (tmp_path / "__init__.py").write_text("changed = True")
    assert environment._commit(tmp_path) == head + "-dirty"


def run_python(script: str, folder: Path, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    surroundings = {key: value for key, value in os.environ.items() if key != "COMPRESS_REC_ISA"}
    surroundings.update({"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **extra})
    return subprocess.run([sys.executable, "-c", script], cwd=folder, env=surroundings, check=check, capture_output=True, text=True)
