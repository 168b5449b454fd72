"""Pieces of HTML that panels are made of; whatever comes from outside is escaped here.

Colours come from JupyterLab's own variables, so that they follow its theme; the value behind the comma
serves where there is no JupyterLab.
"""

import base64
import io
import traceback
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """<style>
.ftlab-panel { border: 1px solid var(--jp-border-color2, #bbb); border-radius: 4px; padding: 8px 12px; }
.ftlab-panel, .ftlab-panel .widget-html-content { color: var(--jp-ui-font-color1, inherit); }
.ftlab-panel h3 { margin: 2px 0 0; font-size: var(--jp-ui-font-size2, 15px); }
.ftlab-panel p { margin: 3px 0; }
.ftlab-panel .widget-html:has(> .widget-html-content:empty) { display: none; }
.ftlab-panel td { padding: 0 10px 0 0; }
.ftlab-bar { width: 160px; height: 10px; border: 1px solid var(--jp-border-color1, #999); }
.ftlab-bar > div { height: 100%; background: var(--jp-brand-color1, #1976d2); }
.ftlab-panel img { max-width: 100%; }
.ftlab-panel pre { margin: 4px 0; padding: 8px; overflow: auto; line-height: 1.4; user-select: text;
  font-family: var(--jp-code-font-family, monospace); font-size: var(--jp-code-font-size, 13px);
  color: var(--jp-content-font-color1, inherit); background: var(--jp-layout-color2, rgba(128,128,128,.12)); }
.ftlab-panel summary { cursor: pointer; }
.ftlab-panel :focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px; }
.ftlab-error { border-left: 4px solid var(--jp-error-color1, #d32f2f); padding: 4px 10px; margin: 4px 0; }
.ftlab-copy { cursor: pointer; color: var(--jp-ui-font-color1, inherit);
  border: 1px solid var(--jp-border-color2, #bbb); background: var(--jp-layout-color1, transparent); }
</style>"""

# The button stands before the text that it copies; it answers with a word, not with a colour.
_COPY = (
    '<button class="ftlab-copy" type="button" onclick="navigator.clipboard.writeText('
    "this.nextElementSibling.innerText).then(() => this.textContent = 'Copied',"
    " () => this.textContent = 'Please select the text and copy it')\">Copy</button>"
)


def code_html(code: str) -> str:
    """Return `code` as a block that keeps its lines, with a button that copies it."""
    return f"{_COPY}<pre><code>{escape(code)}</code></pre>"


def error_html(error: BaseException, *, with_traceback: bool = True) -> str:
    """Return what went wrong in one line; the traceback is behind a click.

    The traceback holds paths of this machine; a stored output leaves it out.
    """
    line = f"It raised <code>{escape(type(error).__name__)}</code>: {escape(str(error)) or '(no message)'}"
    details = ""
    if with_traceback:
        lines = escape("".join(traceback.format_exception(error)))
        details = f"<details><summary>Where it happened</summary><pre>{lines}</pre></details>"
    return f'<div class="ftlab-error" role="alert">{line}{details}</div>'


def picture_html(figure: "Figure", alt: str, *, dpi: int = 100) -> str:
    """Return a matplotlib figure as an `<img>` with `alt`, the sentence that a screen reader says instead.

    Make the figure with `matplotlib.figure.Figure()`, never with pyplot: pyplot shows nothing in a callback,
    and its current figure is shared between threads.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, bbox_inches="tight")
    data = base64.b64encode(png.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
