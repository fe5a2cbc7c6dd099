"""BibTeX of the methods and detectors that a model was made by; the papers stand beside the code of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ld_hub.distillation import TERMS
from ld_hub.distillation.methods import crosskd
from ld_hub.papers import PAPERS


def bibtex(papers: Iterable[str]) -> str:
    """BibTeX entries of papers, each once; those that are not known are left out.

    Args:
        papers: Addresses on arXiv, or numbers there.
    """
    numbers = dict.fromkeys(re.sub(r".*/", "", paper) for paper in papers if paper)
    return "\n\n".join(PAPERS[number].bibtex() for number in numbers if number in PAPERS)


def papers_of_terms(terms: Iterable[Mapping[str, object]]) -> list[str]:
    """Where terms come from, and the way through the teacher's head that some take: numbers on arXiv.

    Args:
        terms: Their fields, ``kind`` among them; kinds that are not registered here are left out.
    """
    terms = list(terms)
    papers = [TERMS[kind].paper for term in terms if (kind := str(term.get("kind"))) in TERMS]
    if any(term.get("via") == "cross_head" for term in terms):
        papers.append(crosskd.PAPER)
    return [paper.arxiv for paper in papers if paper is not None]
