"""BibTeX of the methods and detectors that a model was made by; the papers stand beside the code of each."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ld_hub.distillation import TERMS
from ld_hub.papers import PAPERS


def bibtex(papers: Iterable[str]) -> str:
    """BibTeX entries of papers, each once; those that are not known are left out.

    Args:
        papers: Addresses on arXiv, or numbers there.
    """
    numbers = dict.fromkeys(re.sub(r".*/", "", paper) for paper in papers if paper)
    return "\n\n".join(PAPERS[number].bibtex() for number in numbers if number in PAPERS)


def papers_of_terms(kinds: Iterable[str]) -> list[str]:
    """Where terms come from: numbers on arXiv.

    Args:
        kinds: Of the terms; those that are not registered here are left out.
    """
    papers = [TERMS[kind].paper for kind in kinds if kind in TERMS]
    return [paper.arxiv for paper in papers if paper is not None]
