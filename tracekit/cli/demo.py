"""`tracekit demo`."""

from __future__ import annotations

import shutil
from pathlib import Path


def command_demo(output: Path = Path("tracekit-demo"), *, open: bool = False) -> None:
    """Write the published study's page, its trace viewer and its probing report, and name them.

    The pages come with the package and need no network. With --open the study's page is opened in the browser.

    Example: tracekit demo --open

    Parameters
    ----------
    output
        Folder that the pages are written into; pages of an earlier demo there are replaced.
    open
        Open the study's page in the browser.
    """
    from tracekit.study.published import DEMO_PAGES, REPORT, published_results

    source = published_results("sealed")
    written = []
    for title, name in DEMO_PAGES:
        if not (source / name).is_file():
            continue  # the study is published while it runs, and its probing report comes last
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == REPORT:
            shutil.copyfile(source / name, target)
        else:  # a page with files of its own beside it
            shutil.copytree((source / name).parent, target.parent, dirs_exist_ok=True)
        written.append(target)
        print(f"{title}: {target}")
    if open:
        import webbrowser

        webbrowser.open(written[0].resolve().as_uri())
