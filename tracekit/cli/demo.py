"""`tracekit demo`."""

from __future__ import annotations

import shutil
from pathlib import Path


def command_demo(output: Path = Path("tracekit-demo"), *, open: bool = False, json: bool = False) -> None:
    """Write the published study's page, its trace viewer and its probing report, and name them.

    The pages come with the package and need no network. With --open the study's page is opened in the browser.

    Example: tracekit demo --open

    Parameters
    ----------
    output
        Folder that the pages are written into; pages of an earlier demo there are replaced.
    open
        Open the study's page in the browser.
    json
        Print one JSON object: the pages.
    """
    from tracekit.cli.arguments import print_json
    from tracekit.core.folders import claim_folder
    from tracekit.study.published import DEMO_PAGES, REPORT, VIEWER, VIEWER_DATA, published_results
    from tracekit.viewer.build import copy_page

    source = published_results("sealed")
    claim_folder(output, "demo", {Path(name).parts[0] for _, name in DEMO_PAGES})
    written = {}
    for title, name in DEMO_PAGES:
        if not (source / (VIEWER_DATA if name == VIEWER else name)).exists():
            continue  # the study is published while it runs, and its probing report comes last
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == REPORT:
            shutil.copyfile(source / name, target)
        else:  # a page with files of its own beside it
            shutil.copytree((source / name).parent, target.parent, dirs_exist_ok=True)
            if name == VIEWER:
                copy_page(target.parent)
        written[title] = target
        if not json:
            print(f"{title}: {target}")
    if json:
        print_json({"pages": written})
    if open:
        import webbrowser

        webbrowser.open(next(iter(written.values())).resolve().as_uri())
