"""The choice of boxes as an ONNX graph, in ONNX's own text: what `ld_hub.layers.postprocess` does, for a whole batch.

Shapes: N images, A rows, C classes, L levels, M rows that pass the filter, D detections.
"""

from __future__ import annotations

from ld_hub.errors import ConfigError
from ld_hub.layers.postprocess import PostprocessConfig


def choice_graph(config: PostprocessConfig, levels: int) -> str:
    """Filter of each level, class-wise NMS, cap.

    Takes the outputs of `ld_hub.export.program.DetectorRows`; returns boxes ``(N, D, 4)``, scores and labels
    ``(N, D)``, best first. Places of an image for which nothing was found have the score 0 and the label -1.

    Args:
        config: Settings.
        levels: L.

    Raises:
        ConfigError: If ONNX has no such NMS.
    """
    require_hard(config)
    return f"""\
choose (float[N,A,4] row_boxes, float[N,A,C] row_scores, float[N,A] row_quality, int64[{levels}] level_sizes)
    => (float[N,D,4] boxes, float[N,D] scores, int64[N,D] labels) {{
  first = Constant <value = int64[1] {{0}}> ()
  one = Constant <value = int64[1] {{1}}> ()
  last = Constant <value = int64[1] {{-1}}> ()
  whole = Constant <value = int64[2] {{0, -1}}> ()
  nothing = Constant <value = float {{0.0}}> ()
  above_nothing = Constant <value = float[1] {{0.0}}> ()
  least = Constant <value = float {{{config.score_threshold!r}}}> ()
  overlap = Constant <value = float[1] {{{config.nms_iou!r}}}> ()
  most = Constant <value = int64[1] {{{config.max_detections}}}> ()
  level_most = Constant <value = int64[1] {{{config.nms_pre}}}> ()
{_filter(config, levels)}
  over = Greater (passing, least)
  factor = Unsqueeze (kept_quality, last)
  product = Mul (kept_scores, factor)
  candidates = Where (over, product, nothing)
  by_class = Transpose <perm = [0, 2, 1]> (candidates)
  selected = NonMaxSuppression (kept_boxes, by_class, most, overlap, above_nothing)
  selected_scores = GatherND (by_class, selected)
  empty = Mul (by_class, nothing)
  survivors = ScatterND (empty, selected, selected_scores)
  places = Reshape (survivors, whole)
  number = Shape <start = 1> (places)
  cap = Min (most, number)
  scores, place = TopK <axis = 1> (places, cap)
  width = Shape <start = 1> (rows)
  label = Div (place, width)
  row = Mod (place, width)
  found = Greater (scores, nothing)
  labels = Where (found, label, last)
  row_at = Unsqueeze (row, last)
  boxes = GatherND <batch_dims = 1> (kept_boxes, row_at)
}}"""


def require_hard(config: PostprocessConfig) -> None:
    """Refuse settings for which exported graphs have no operator.

    Raises:
        ConfigError: If the NMS is not the greedy one.
    """
    if config.nms != "hard":
        raise ConfigError(
            f"nms is {config.nms!r}, for which exported graphs have no operator; expected 'hard'. Leave the choice of "
            "boxes out (--no_nms, no_nms=True), or set the model's postprocess_config to nms='hard'."
        )


def _filter(config: PostprocessConfig, levels: int) -> str:
    """Rows that are kept, with the class scores that may pass the threshold.

    The best (row, class) pairs of a level lie in as many of its best rows, so pairs are looked for there.
    """
    pair, each = config.prefilter == "pair", range(levels)
    names = {
        name: ", ".join(f"{name}_{level}" for level in each) for name in ("ranking", "count", "rows_of", "passing_of")
    }
    pairs = "\n".join(map(_best_pairs, each)) if pair else ""
    return f"""\
  best_class = ReduceMax <keepdims = 0> (row_scores, last)
  ranking = {"Identity (best_class)" if pair else "Mul (best_class, row_quality)"}
  {names["ranking"]} = Split <axis = 1> (ranking, level_sizes)
{chr(10).join(map(_best_rows, each))}
  rows = Concat <axis = 1> ({names["rows_of"]})
  at = Unsqueeze (rows, last)
  kept_boxes = GatherND <batch_dims = 1> (row_boxes, at)
  kept_scores = GatherND <batch_dims = 1> (row_scores, at)
  kept_quality = GatherND <batch_dims = 1> (row_quality, at)
{pairs}
  passing = {f"Concat <axis = 1> ({names['passing_of']})" if pair else "Identity (kept_scores)"}"""


def _best_rows(level: int) -> str:
    """The best rows of a level, as indices into A."""
    before = f"Add (start_{level - 1}, size_{level - 1})" if level else "Identity (first)"
    return f"""\
  at_{level} = Constant <value = int64[1] {{{level}}}> ()
  size_{level} = Gather (level_sizes, at_{level})
  start_{level} = {before}
  count_{level} = Min (size_{level}, level_most)
  top_{level}, place_{level} = TopK <axis = 1> (ranking_{level}, count_{level})
  rows_of_{level} = Add (place_{level}, start_{level})"""


def _best_pairs(level: int) -> str:
    """Class scores ``(N, M_l, C)`` of a level's kept rows, 0 but for its best (row, class) pairs."""
    before = f"Add (from_{level - 1}, count_{level - 1})" if level else "Identity (first)"
    return f"""\
  from_{level} = {before}
  to_{level} = Add (from_{level}, count_{level})
  scores_of_{level} = Slice (kept_scores, from_{level}, to_{level}, one)
  flat_{level} = Reshape (scores_of_{level}, whole)
  pairs_{level} = Shape <start = 1> (flat_{level})
  pair_count_{level} = Min (pairs_{level}, level_most)
  pair_scores_{level}, pair_place_{level} = TopK <axis = 1> (flat_{level}, pair_count_{level})
  worst_{level} = ReduceMin <keepdims = 1> (pair_scores_{level}, one)
  worst_row_{level} = Unsqueeze (worst_{level}, last)
  good_{level} = GreaterOrEqual (scores_of_{level}, worst_row_{level})
  passing_of_{level} = Where (good_{level}, scores_of_{level}, nothing)"""
