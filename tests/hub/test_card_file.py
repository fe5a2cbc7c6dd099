"""Text of cards: what is escaped, and what an update leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from ld_hub.errors import ConfigError
from ld_hub.hub.card_file import (
    BEGIN,
    END,
    ap_cells,
    card_metadata,
    escape,
    fence,
    generated_block,
    read_metadata,
    render_card,
    slug,
    table,
    update_card,
)
from ld_hub.hub.evidence import Evidence, JudgedData
from tests.support.evidence import GOOD
from tests.support.judged import STRANGE

page = MarkdownIt("commonmark", {"html": True}).enable("table")


def card(text="one", **metadata):
    return render_card(card_metadata("name", **metadata), "Title", [text])


def cells(html):
    """Text of the cells of a rendered page, as a reader sees it."""
    from html.parser import HTMLParser

    class Reader(HTMLParser):
        found: list[str]
        tags: list[str]

        def __init__(self):
            super().__init__()
            self.found, self.tags = [], []

        def handle_starttag(self, tag, attrs):
            self.tags.append(tag)
            if tag in ("td", "th"):
                self.found.append("")

        def handle_data(self, data):
            if self.found and data.strip():
                self.found[-1] += data

    reader = Reader()
    reader.feed(html)
    return reader.found, set(reader.tags)


def test_any_name_survives_in_a_table():
    names = [*STRANGE, "<!-- ld_hub:end -->", "&amp; \\| $x$", "~~gone~~", "# head", "a\nb\r\nc", "| |", "![i](j.png)"]
    text = table(["class", "AP"], [[escape(name), str(k)] for k, name in enumerate(names)])
    found, tags = cells(page.render(text))
    assert tags == {"table", "thead", "tbody", "tr", "td", "th"}
    shown = [" ".join(name.split()).replace("\u202e", "\\u202e") for name in names]
    assert found == ["class", "AP", *(word for k, name in enumerate(shown) for word in (name, str(k)))]
    whole = render_card(card_metadata("n"), names[5], [text])
    assert whole.count(END) == 1 and update_card(whole, whole) == whole


def test_code_cannot_leave_its_fence():
    for text in ("```\n<script>\n```", "````", f"{END}\n{BEGIN}", "a\u202eb"):
        whole = card(fence(text, "yaml"))
        _, tags = cells(page.render(generated_block(whole)))
        assert "script" not in tags and tags <= {"pre", "code"}
        assert update_card(whole, whole) == whole


def test_metadata_is_what_the_client_reads_back():
    stats = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 0.25) | {"APs": None, "AP": 1 / 3}
    data = JudgedData('x: "y" 🦆 #', "val", "a.json", "0" * 64)
    evaluation = replace(Evidence.from_dict(GOOD), stats=stats, data=data)
    text = card(license="Apache-2.0", datasets=["My data!"], base_model="timm/a.b", evaluations=[evaluation])
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("ld_hub", "object-detection", "apache-2.0")
    assert (data.datasets, data.base_model) == (["my-data"], "timm/a.b")
    found = {
        (r.dataset_name, r.dataset_type, r.dataset_split, r.metric_type): r.metric_value for r in data.eval_results
    }
    where = ('x: "y" 🦆 #', "x-y", "val")
    quarters = {(*where, kind): 0.25 for kind in ("map_50", "map_75", "map_medium", "map_large")}
    assert found == {(*where, "map"): 0.3333, **quarters}
    bare = yaml.safe_load(card().split("---")[1])
    assert bare == {"library_name": "ld_hub", "pipeline_tag": "object-detection"}


def test_numbers_of_two_protocols_stand_side_by_side():
    data = JudgedData("voc", "test", "a.json", "0" * 64)
    stats = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 0.25)
    coco = replace(Evidence.from_dict(GOOD), stats=stats, data=data)
    names = ["AP", *(f"AP{k}" for k in range(50, 100, 5))]
    voc = replace(coco, protocol="voc07", stats={name: k / 100 for k, name in enumerate(names)})
    results = ModelCard(card(evaluations=[coco, voc])).data.eval_results
    found = {r.metric_type: (r.metric_name, r.metric_value) for r in results}
    assert len(found) == 6 + 11
    assert found["map"] == ("AP", 0.25) and found["map_75"] == ("AP75", 0.25)
    assert found["voc07_map"] == ("AP (voc07)", 0.0) and found["voc07_map_95"] == ("AP95 (voc07)", 0.1)
    assert ap_cells(voc) == ["0.0", "1.0", "2.0", "3.0", "4.0", "5.0", "6.0", "7.0", "8.0", "9.0", "10.0"]


def test_an_update_leaves_the_owners_words():
    first = card("old AP", tags=["gfocal", "recipe:ld", "teacher:r101"], base_model="timm/a", license="mit")
    mine = first.replace("# Title", "# My title <b>\n\nMine, *before*.").replace(END, f"{END}\n\nAfter: 🦆 | --- \n")
    mine = mine.replace("---\n", "---\nlanguage: en  # said so\n", 1).replace("- gfocal\n", "- gfocal\n- ducks\n")
    new = card("new AP", tags=["gfocal", "recipe:vlr"], datasets=["coco"])
    done = update_card(mine, new)
    before, after = mine.split(BEGIN)[0].split("---\n", 2)[2], mine.split(END)[1]
    assert done.split("---\n", 2)[2] == f"{before}{generated_block(new)}{after}"
    assert read_metadata(done) == {
        "language": "en",
        "library_name": "ld_hub",
        "pipeline_tag": "object-detection",
        "license": "mit",
        "tags": ["gfocal", "ducks", "recipe:vlr"],
        "datasets": ["coco"],
    }
    assert update_card(done, new) == done
    assert "# said so" in update_card(mine, first)  # metadata that does not change stays as it is written


def test_numbers_of_earlier_weights_do_not_stay():
    stats = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 0.5)
    evaluation = replace(Evidence.from_dict(GOOD), stats=stats)
    assert read_metadata(card(evaluations=[evaluation]))["model-index"]
    assert "model-index" not in read_metadata(update_card(card(evaluations=[evaluation]), card()))


@pytest.mark.parametrize(
    "existing", ["# Mine\n\nwords", "---\nlicense: mit\n---\n# Mine\n\nwords\n", "\ufeff# Mine\n\nwords"]
)
def test_a_readme_without_a_block_gets_one_at_its_end(existing):
    done = update_card(existing, card("x"))
    assert done.count("# Mine\n\nwords\n\n" + generated_block(card("x"))) == 1 and "# Title" not in done
    assert read_metadata(done)["library_name"] == "ld_hub"
    assert ("license" in read_metadata(done)) == ("license" in existing)
    assert update_card(done, card("x")) == done


def test_line_ends_of_another_system_stay():
    mine = card("x").replace("\n", "\r\n")
    done = update_card(mine, card("y"))
    assert done == card("y").replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("existing", "word"),
    [
        (f"{BEGIN}\nnever closed", "1 mark"),
        (f"{END}\n{BEGIN}", "one block"),
        (card("x") + card("x").split("---\n", 2)[2], "2 mark"),
        ("---\na: [1\n---\n", "not YAML"),
        ("---\n- a\n---\n", "no YAML mapping"),
        ("---\na: &x [1]\nb: *x\n---\n", "aliases"),
        ("---\na: !!python/object/apply:os.system [ls]\n---\n", "not YAML"),
        (f"---\na: {'x' * 300_000}\n---\n", "longer than"),
    ],
)
def test_a_readme_that_cannot_be_renewed_is_refused(existing, word):
    with pytest.raises(ConfigError, match=word):
        update_card(existing, card())


def test_tokens_never_enter_a_card():
    token = "hf_" + "a" * 34
    text = render_card(card_metadata("n", tags=[token]), token, [fence(f"ld-hub push --token {token}")])
    assert token not in text and "# hf\\_…" in text and "hf_…" in text


def test_slugs():
    assert [slug(x) for x in ("COCO 2017", "org/Name", "café", "数据", "../x", "a_b")] == [
        "coco-2017", "org/Name", "cafe", "custom", "x", "a_b",
    ]  # fmt: skip
