"""Tables that a phone can show: every cell has the title of its column, which style.css puts
above the cell where there is no room for columns.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from markdown.treeprocessors import Treeprocessor


class CellTitles(Treeprocessor):
    def run(self, root: Element) -> None:
        for table in root.iter("table"):
            titles = ["".join(cell.itertext()).strip() for cell in table.iter("th")]
            for row in table.iter("tr"):
                for title, cell in zip(titles, row.findall("td"), strict=False):
                    if title:
                        cell.set("data-title", title)
                    if not "".join(cell.itertext()).strip():
                        cell.set("class", "empty")
