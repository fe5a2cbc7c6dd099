"""CrossLD: LD's box terms and BCKD's class term on what the teacher's head makes of the student's features."""

from __future__ import annotations

from ld_hub.checked import Scalar
from ld_hub.distillation.methods import bckd, crosskd, ld
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import TermConfig

# T, and 16 times LD's weights, are those that examples/temperature found best; the published ones are for T = 10
TERMS: dict[str, TermConfig] = {
    "bckd_cls": bckd.ClassBCEConfig(via="cross_head"),
    "ld": ld.BoxBinsKLConfig(via="cross_head", temperature=2.0, weight=4.0),
    "ld_vlr": ld.BoxBinsKLConfig(via="cross_head", temperature=2.0, weight=1.0, region="vlr"),
}
# The regions of LD's published configurations
FAMILIES: dict[str, dict[str, dict[str, Scalar]]] = {
    "fcos": {"ld_vlr": {"region": "inside_gt", "exclude_positives": True}},
}
register_recipe(
    Recipe(
        "crossld",
        TERMS,
        "LD's box and BCKD's class terms through the teacher's head",
        paper=crosskd.PAPER.address,
        families=FAMILIES,
    )
)
