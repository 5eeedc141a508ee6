"""The options that name a model, and loading it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from processors.cli._failures import fail, first_line

__all__ = ["EMBEDDED", "DeviceOption", "ModelOption", "SeedOption", "load"]

EMBEDDED = "embedded"

ModelOption = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="A directory of a Hugging Face causal model, its name on the hub, or `embedded`: the small model that "
        "ships with the package.",
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, ...  [default: cuda if there is one]")
]
SeedOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, max=2**32 - 1, help="Same seed, same outputs; without it they vary."),
]


def load(name: str, device: str | None) -> tuple[Any, Any]:
    """A model, in eval mode and on its device, and its tokenizer; ends the command where there is none."""
    from processors.embedded import load_embedded

    try:
        import torch

        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # a CPU build of torch asserts that CUDA is there
            fail(f"--device {device}: {first_line(error)}", code=2)
        if name == EMBEDDED:
            return load_embedded(device)

        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        fail(
            f"generation needs torch and transformers, and {error.name} could not be imported: "
            "pip install 'outlines-processors[hf]'"
        )
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    directory = Path(name).expanduser()
    if is_path and not directory.is_dir():
        fail(f"--model {name}: there is no such directory", code=2)
    where = str(directory) if directory.is_dir() else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
        model: Any = AutoModelForCausalLM.from_pretrained(where)
    except (ImportError, OSError, ValueError) as error:  # ImportError: a tokenizer that needs another library
        fail(f"cannot load the model {name}: {first_line(error)}")
    return model.to(device).eval(), tokenizer
