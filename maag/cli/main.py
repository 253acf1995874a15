"""The `maag` command: its subcommands, and how errors are shown."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType

import click

from maag import __version__
from maag.cli.config import config_group
from maag.cli.data import data_group
from maag.cli.demo import demo_command
from maag.cli.doctor import doctor_command
from maag.cli.evaluate import evaluate_command
from maag.cli.export import export_command
from maag.cli.predict import predict_command
from maag.cli.train import train_command
from maag.cli.tune import tune_command
from maag.errors import MaagError

_DEBUG = "--debug"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="maag")
def commands() -> None:
    """Learn to segment from scribbles.

    Start with `maag demo`. Add --debug to any command to see the traceback of an error.
    """


for _command in (
    demo_command,
    data_group,
    train_command,
    tune_command,
    evaluate_command,
    export_command,
    predict_command,
    config_group,
    doctor_command,
):
    commands.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 success; 1 failure; 2 wrong usage or configuration; 3 some cases failed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in words
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = commands([word for word in words if word != _DEBUG], prog_name="maag", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MaagError as error:
        if debug:
            traceback.print_exception(error)
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM like Ctrl-C, which removes partial output."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell script does for what it starts with `&`
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
