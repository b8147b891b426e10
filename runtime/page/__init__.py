"""A page in the browser: choose a video, mark objects, watch them, take the masks away.

One thread steps the Segmenter (`session.py`), and the server (`server.py`) asks it; the browser's
half is in `static/`. Imports the server's packages only when a page is served.
"""

from .command import add_page_arguments, serve

__all__ = ["add_page_arguments", "serve"]
