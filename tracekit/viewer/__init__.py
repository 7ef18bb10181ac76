"""A page to read traces by: a folder that opens from disk, with no server and no network."""

from tracekit.viewer.build import ViewError, build_view

__all__ = ["ViewError", "build_view"]
