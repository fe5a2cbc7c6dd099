"""A strict reading of the pages: every element that is opened is closed, in order."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"br", "img", "meta"}


class Page(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.attributes, self.texts = [], [], [], []

    @classmethod
    def read(cls, text):
        seen = cls()
        seen.feed(text)
        seen.close()
        assert seen.open == [], seen.open
        return seen

    @property
    def text(self):
        return "\n".join(self.texts)

    def handle_starttag(self, name, attributes):
        self.elements.append(name)
        self.attributes += attributes
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open and self.open[-1] == name, (name, self.open)
        self.open.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)
