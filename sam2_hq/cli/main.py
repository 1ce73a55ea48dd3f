"""`sam2-hq`: the commands, and what happens when one fails.

A mistake of the user is one line on stderr and exit code 2. `sam2-hq --debug COMMAND` shows the
traceback.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer
from safetensors import SafetensorError
from typer.core import TyperGroup

from sam2_hq.cli.benchmark import benchmark
from sam2_hq.cli.checkpoints import convert, download, info
from sam2_hq.cli.compare import compare
from sam2_hq.cli.doctor import doctor
from sam2_hq.cli.evaluate import evaluate
from sam2_hq.cli.evaluate_boxes import evaluate_boxes
from sam2_hq.cli.evaluate_stills import evaluate_stills
from sam2_hq.cli.everything import everything
from sam2_hq.cli.segment import segment
from sam2_hq.cli.track import track
from sam2_hq.cli.track_dataset import track_dataset
from sam2_hq.cli.train import train

# safetensors reports a full disk in a class of its own; training, losses that are not finite.
USER_MISTAKES = (ValueError, TypeError, OSError, SafetensorError, FloatingPointError)

# Typer has left the click package for a copy of its own; this names the class in both.
_UsageError: Any = typer.BadParameter.__base__


class OneLineErrors(TyperGroup):
    """A group of commands that says what went wrong in one line and exits with 2."""

    def invoke(self, ctx: Any) -> Any:  # Any: typer's context class has moved between releases
        """Run the command."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            message = error.format_message()
        except USER_MISTAKES as error:
            if ctx.params["debug"]:
                raise
            message = explain(error)
        typer.echo(f"sam2-hq: {message}", err=True)
        raise typer.Exit(2)


def explain(error: Exception) -> str:
    """The message of an error on one line, never empty."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def say_what_to_do(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Click, box or paint an object and get its sharp mask, on an image or through a video."""
    logging.basicConfig(format="sam2-hq: %(message)s")
    logging.getLogger("sam2_hq").setLevel(logging.DEBUG if debug else logging.WARNING)


for command in (
    track,
    track_dataset,
    segment,
    everything,
    evaluate,
    evaluate_boxes,
    evaluate_stills,
    compare,
    benchmark,
    info,
    convert,
    download,
    doctor,
    train,
):
    app.command()(command)


def main() -> None:
    """Run the command line; the entry point of the package."""
    app(prog_name="sam2-hq")


if __name__ == "__main__":
    main()
