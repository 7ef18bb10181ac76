"""Run the command line with `python -m tracekit.cli`."""

from tracekit.cli.app import main

if __name__ == "__main__":
    main()
