"""Reports that show what a detector does wrong, and what a distilled student does better."""

from ld_hub.analysis.collect import Subject
from ld_hub.analysis.numbers import Analysis
from ld_hub.analysis.report import NUMBERS, REPORT, analyze

__all__ = ["NUMBERS", "REPORT", "Analysis", "Subject", "analyze"]
