"""Papers as data: the source of a method or of a detector, and its BibTeX entry."""

from __future__ import annotations

from dataclasses import dataclass

from ld_hub.registry import Registry


@dataclass(frozen=True)
class Paper:
    """A paper that lies on arXiv.

    Attributes:
        arxiv: Its number there.
        key: BibTeX key.
        title: With braces around letters whose case counts.
        authors: ``Last, First and Last, First``.
        year: Of the proceedings, or of the preprint.
        venue: Proceedings; the empty string for a preprint.
    """

    arxiv: str
    key: str
    title: str
    authors: str
    year: int
    venue: str = ""

    @property
    def address(self) -> str:
        """Where it lies."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    def bibtex(self) -> str:
        """Its entry."""
        fields = {"title": self.title, "author": self.authors, "booktitle": self.venue, "year": str(self.year)}
        if not self.venue:
            fields["journal"] = f"arXiv:{self.arxiv}"
        fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@{'inproceedings' if self.venue else 'article'}{{{self.key},", *lines, "}"])


PAPERS: Registry[Paper] = Registry("paper")


def register_paper(paper: Paper) -> Paper:
    """Make a paper known to cards, by its number on arXiv; methods and families do so beside their code."""
    return PAPERS.register(paper.arxiv, paper)
