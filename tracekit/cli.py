"""The command line. Each command is "module:function", imported when it is called: `--help` costs no torch."""

from __future__ import annotations

from cyclopts import App

app = App(
    name="tracekit",
    help="Curate and verify reasoning traces, train by imitation and RL, probe what changed.",
    version_flags=["--version"],
)


def main() -> None:
    """Entry point of the `tracekit` script."""
    app()


if __name__ == "__main__":
    main()
