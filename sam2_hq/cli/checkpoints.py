"""`sam2-hq info`, `convert` and `download`: what a checkpoint is, in which format, from where."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from sam2_hq.build_sam import load
from sam2_hq.checkpoint import (
    LICENSE_KEY,
    is_hq_addon,
    read_checkpoint,
    read_metadata,
    recognise,
)
from sam2_hq.checkpoint import convert as rewrite
from sam2_hq.cli.options import Overwrite
from sam2_hq.hub import download as fetch
from sam2_hq.model_spec import DTYPES

CheckpointFile = Annotated[
    str,
    typer.Argument(metavar="CHECKPOINT", help="A .pt or .safetensors file.", show_default=False),
]


def info(checkpoint: CheckpointFile) -> None:
    """Say what a checkpoint is.

    From its tensors alone; then it is loaded into its model, to see whether it fits. HQ tensors
    by themselves have no model before they are joined to a checkpoint.
    """
    state_dict = read_checkpoint(checkpoint)
    numbers = sum(tensor.numel() for tensor in state_dict.values())
    dtypes = Counter(str(t.dtype).removeprefix("torch.") for t in state_dict.values())
    typer.echo(f"tensors     {len(state_dict)}, {numbers / 1e6:.1f} M numbers")
    typer.echo(f"dtype       {', '.join(f'{name} ({n})' for name, n in dtypes.most_common())}")
    if is_hq_addon(state_dict):
        typer.echo("kind        HQ tensors without a model")
        typer.echo(f"use         sam2-hq convert PLAIN_CHECKPOINT NEW_FILE --hq {checkpoint}")
        _say_data(checkpoint)
        return
    kind = recognise(state_dict)
    typer.echo(f"kind        {kind}")
    typer.echo(f"config      {kind.config}")
    _say_data(checkpoint)
    load(checkpoint, device="cpu")
    typer.echo("fits        yes, every tensor of the model and no other")


def _say_data(checkpoint: str) -> None:
    if LICENSE_KEY in (notes := read_metadata(checkpoint)):
        typer.echo(f"data        {notes[LICENSE_KEY]} (licence classes)")


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A .pt or .safetensors file.", show_default=False)
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="DST", help="The new file; .pt or .safetensors decides the format."),
    ],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16 or float16 for the weights. Default: as they are.",
            show_default=False,
        ),
    ] = None,
    hq: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Add these 13 HQ tensors, which training writes as hq_tensors.safetensors.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Rewrite a checkpoint as .pt or .safetensors."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if target.exists() and not overwrite:
        raise ValueError(f"{target} is already there; --overwrite replaces it")
    wanted = None if dtype is None else DTYPES[dtype]
    typer.echo(rewrite(source, target, overwrite=overwrite, dtype=wanted, hq=hq))


def download(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A published name, such as sam2.1_hiera_tiny or sam2.1_hq_hiera_large.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the file. Default: the user's cache, where --checkpoint NAME looks.",
            show_default=False,
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="A mirror that has the file under its name.", show_default=False),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="The digest that the file must have.", show_default=False)
    ] = None,
) -> None:
    """Fetch a published checkpoint.

    Called again, it goes on where it stopped.
    """
    typer.echo(fetch(name, out, base_url=base_url, sha256=sha256))
