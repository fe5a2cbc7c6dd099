from __future__ import annotations

from ld_hub.analysis.page import Html, Picture, Section, cell, escape, page, table, tag
from tests.analysis.parsing import Page

EVIL = '"</td><script>alert(1)</script>'


def test_texts_never_become_markup():
    picture = Picture(b"x", "png", 3, 4, EVIL)
    rows = [[EVIL, cell(EVIL, style=EVIL)], ["<td>", 3]]
    body = [EVIL, table([EVIL], rows), picture.html(EVIL), tag("p", EVIL, title=EVIL)]
    seen = Page.read(page(EVIL, [EVIL], [Section("key", EVIL, EVIL, body)]))
    assert "script" not in seen.elements
    assert seen.text.count(EVIL) == 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1  # wherever a text stands
    assert [a for a in seen.attributes if a[1] == EVIL] == [("style", EVIL), ("alt", EVIL), ("title", EVIL)]
    assert "<td>" in seen.text and seen.elements.count("td") == 4


def test_markup_is_not_escaped_twice_and_odd_letters_are_replaced():
    inner = tag("b", "a & b")
    assert inner == "<b>a &amp; b</b>" and isinstance(inner, Html)
    assert escape(inner) is inner and tag("p", inner) == f"<p>{inner}</p>"
    assert tag("p", title=inner) == '<p title="&lt;b&gt;a &amp;amp; b&lt;/b&gt;"></p>'  # an attribute holds text
    assert escape("\ud800 ü") == "? ü"
    assert tag("img", src="a", aria_label="b") == '<img src="a" aria-label="b">'


def test_a_page_lists_its_sections():
    parts = [Section("one", "First", "See this.", []), Section("two", "Second", "And this.", ["text"])]
    text = page("Title", [], parts)
    seen = Page.read(text)
    links = [value for name, value in seen.attributes if name == "href"]
    assert links == ["#one", "#two"]
    assert {"one", "two"} <= {value for name, value in seen.attributes if name == "id"}
    assert 'content="width=device-width' in text and text.startswith("<!DOCTYPE html>")
