"""Tables: text to the left, numbers to the right, as text and as HTML, and results that show themselves."""

import importlib
import pkgutil
import re
from dataclasses import dataclass

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbformat.v4 import writes as notebook_text

import ftlab
from ftlab.table import Table, Tabled
from tests.jupyterlab import KERNEL

HEADERS = ["part", "tensors", "share", "size", "kept", "nothing", "seen as"]
ROWS = [
    ["stem", 1, 0.5, "1.5 MiB", True, None, "12"],
    ["<head>", 20_000, 12.25, "12 KiB", False, None, "3"],
]
ALIGNED = ["left", "right", "right", "left", "left", "left", "right"]  # a column of digits is one of numbers
LEFT = ' style="text-align: left;"'
IN_THE_PAGE = """(root) => [...root.querySelectorAll('tr')].map(
    (row) => [...row.children].map((cell) => getComputedStyle(cell).textAlign))"""


@pytest.fixture
def table():
    return Table(HEADERS, ROWS, title="what", note="one <note>")


def aligned_as_text(table: Table) -> list[str]:
    """Return where the columns of the text form are: a cell shorter than its column leaves its blanks there."""
    ruler, *lines = repr(table).splitlines()[2:-1]
    columns = [slice(*dashes.span()) for dashes in re.finditer("-+", ruler)]
    cells = [[line.ljust(len(ruler))[column] for line in lines] for column in columns]
    return [
        "right" if any(cell.strip() and cell.startswith(" ") for cell in column) else "left" for column in cells
    ]


def aligned_as_html(html: str) -> list[list[str]]:
    rows = re.findall("<tr>(.*?)</tr>", html)
    return [re.findall(r'<t[hd] style="text-align: (\w+);">', row) for row in rows]


def test_text_is_on_the_left_and_numbers_are_on_the_right(table):
    assert aligned_as_html(table._repr_html_()) == [ALIGNED] * 3
    assert aligned_as_text(table) == ALIGNED


def test_a_cell_without_a_style_would_be_seen(table):
    html = table._repr_html_().replace(LEFT, "", 1)
    assert aligned_as_html(html) != [ALIGNED] * 3


def test_what_looks_like_a_cell_is_text():
    html = Table(["<th>"], [["<td>"]])._repr_html_()
    assert f"<th{LEFT}>&lt;th&gt;" in html
    assert f"<td{LEFT}>&lt;td&gt;" in html


def test_a_table_without_rows_is_html_too():
    assert Table([], [], note="nothing")._repr_html_().endswith("<p>nothing</p>")


@dataclass(frozen=True, repr=False)
class Bill(Tabled):
    price: int

    def table(self) -> Table:
        return Table(["what", "price"], [["tea", self.price]])


def written_by_dataclass(kind: type) -> bool:
    """Whether the repr is the one that `dataclass` writes: it guards itself against what holds itself."""
    return hasattr(kind.__repr__, "__wrapped__")


def test_what_is_tabled_shows_itself_as_its_table():
    assert repr(Bill(2)) == repr(Bill(2).table())
    assert Bill(2)._repr_html_() == Bill(2).table()._repr_html_()
    assert Bill(2) == Bill(2) != Bill(3)
    assert not written_by_dataclass(Bill)


def test_a_dataclass_that_writes_its_own_repr_would_be_seen():
    @dataclass
    class Loud(Tabled):
        price: int

    assert repr(Loud(2)).endswith("Loud(price=2)")
    assert written_by_dataclass(Loud)


def test_every_result_of_ftlab_shows_its_table():
    for module in pkgutil.walk_packages(ftlab.__path__, "ftlab."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kinds = [kind for kind in Tabled.__subclasses__() if kind.__module__.startswith("ftlab.")]
    assert len(kinds) > 30
    assert [kind for kind in kinds if written_by_dataclass(kind) or kind.table is Tabled.table] == []


def test_a_result_without_a_table_says_so():
    class Nothing(Tabled):
        pass

    with pytest.raises(NotImplementedError, match=r"Nothing has no table\(\) of its own"):
        repr(Nothing())


def stored(html: str):
    """Return a cell with an output that another person's notebook brought along; JupyterLab cleans it."""
    output = new_output("display_data", {"text/html": html})
    return new_code_cell("'stored'", outputs=[output], execution_count=1)


@pytest.mark.browser
def test_jupyterlab_leaves_the_columns_where_they_are(notebook, table, tmp_path):
    html = table._repr_html_()
    cells = [stored(html), stored(html.replace(LEFT, "")), new_code_cell(f"Table({HEADERS}, {ROWS})")]
    cells.append(new_code_cell("from ftlab.table import Table"))
    file = tmp_path / "tables.ipynb"
    file.write_text(notebook_text(new_notebook(cells=cells, metadata={"kernelspec": KERNEL})), encoding="utf-8")
    nb = notebook(file)
    nb.run_cell("import Table")
    nb.run_cell("Table([")
    tables = nb.panel.locator("table")
    for theme in ("light", "dark"):
        nb.theme(theme)
        assert tables.nth(0).evaluate(IN_THE_PAGE) == [ALIGNED] * 3
        assert (
            tables.nth(1).evaluate(IN_THE_PAGE) == [["right"] * len(HEADERS)] * 3
        )  # what JupyterLab does itself
        assert tables.nth(2).evaluate(IN_THE_PAGE) == [ALIGNED] * 3
        nb.screenshot(f"tables-{theme}")


@pytest.mark.browser
def test_a_page_of_its_own_has_the_same_columns(browser, table):
    page = browser.new_page()
    page.set_content(table._repr_html_())
    assert page.locator("table").evaluate(IN_THE_PAGE) == [ALIGNED] * 3
    page.close()
