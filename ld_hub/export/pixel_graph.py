"""Preprocessing as an ONNX graph, in ONNX's own text: the resize of this library to the last grey level.

torch resizes 8-bit images in whole numbers: two taps per pixel with weights of as many bits as 16-bit numbers hold,
along x first and then along y, rounded after each. The same numbers stand here and in `ld_hub.runtime.pixels`.

Shapes: N images of h x w px and K channels; resized to H x W px, padding included.
"""

from __future__ import annotations

from ld_hub.preprocessing import DataConfig

BITS = 22  # most that a weight may have; 16-bit numbers end the count before


def pixel_graph(config: DataConfig, size: tuple[int, int] | None) -> str:
    """Pixels ``(N, h, w, K)`` uint8 to a network's input.

    Returns the images ``(N, K, H, W)``, their sizes ``(N, 2)`` before padding, and what boxes are to be divided by,
    ``(4,)``.

    Args:
        config: Of the model.
        size: Height and width that everything is padded to; None for multiples of ``size_divisor``.
    """
    return f"""\
prepare (uint8[N,h,w,{config.channels}] pixels)
    => (float[N,{config.channels},H,W] images, int64[N,2] image_sizes, float[4] factors) {{
{_size(config, size)}
  powers = Constant <value = double[{BITS}] {{{", ".join(str(float(2 ** (bit + 1))) for bit in range(BITS))}}}> ()
  units = Constant <value = int32[{BITS + 1}] {{{", ".join(str(2**bit) for bit in range(BITS + 1))}}}> ()
  limit = Constant <value = double {{32768.0}}> ()
  two = Constant <value = int32 {{2}}> ()
  from_zero = Constant <value = int64 {{0}}> ()
  by_one = Constant <value = int64 {{1}}> ()
{_resize("x", 1, "pixels", "wide")}
{_resize("y", 0, "wide", "resized")}
{_normal(config)}
{_padding(config.size_divisor, size)}
  missing = Sub (padded_size, new_size)
  nowhere = Constant <value = int64[6] {{0, 0, 0, 0, 0, 0}}> ()
  pads = Concat <axis = 0> (nowhere, missing)
  images = Pad (planes, pads)
  number = Shape <start = 0, end = 1> (pixels)
  pair = Constant <value = int64[1] {{2}}> ()
  sizes_shape = Concat <axis = 0> (number, pair)
  image_sizes = Expand (new_size, sizes_shape)
  new_floats = Cast <to = 1> (new_size)
  old_floats = Cast <to = 1> (size)
  ratios = Div (new_floats, old_floats)
  corners = Constant <value = int64[4] {{1, 0, 1, 0}}> ()
  factors = Gather (ratios, corners)
}}"""


def unscale_graph() -> str:
    """Boxes of the resized image ``(N, A, 4)`` to px of the original."""
    return """\
unscale (float[N,A,4] row_boxes, float[4] factors) => (float[N,A,4] pixel_boxes) {
  pixel_boxes = Div (row_boxes, factors)
}"""


def _size(config: DataConfig, size: tuple[int, int] | None) -> str:
    """Height and width before and after the resize, as whole numbers and as float64; see `resize_shape`."""
    short, long = config.image_size
    largest = (long, long) if size is None else size
    return f"""\
  size = Shape <start = 1, end = 3> (pixels)
  sides = Cast <to = 11> (size)
  bounds = Constant <value = double[2] {{{float(short)!r}, {float(long)!r}}}> ()
  largest = Constant <value = double[2] {{{float(largest[0])!r}, {float(largest[1])!r}}}> ()
  zero = Constant <value = double {{0.0}}> ()
  half = Constant <value = double {{0.5}}> ()
  unity = Constant <value = double {{1.0}}> ()
  shorter = ReduceMin <keepdims = 1> (sides)
  longer = ReduceMax <keepdims = 1> (sides)
  by_length = Concat <axis = 0> (shorter, longer)
  reach = Div (bounds, by_length)
  room = Div (largest, sides)
  limits = Concat <axis = 0> (reach, room)
  scale = ReduceMin <keepdims = 0> (limits)
  scaled = Mul (sides, scale)
  raised = Add (scaled, half)
  rounded = Floor (raised)
  new_sides = Max (rounded, unity)
  new_size = Cast <to = 7> (new_sides)"""


def _normal(config: DataConfig) -> str:
    """Resized pixels to normalised planes."""
    scale, shift = (", ".join(map(repr, each)) for each in config.scale_and_shift)
    order = ", ".join(map(str, range(config.channels)[:: -1 if config.channel_order == "bgr" else 1]))
    return f"""\
  order = Constant <value = int64[{config.channels}] {{{order}}}> ()
  ordered = Gather <axis = 3> (resized, order)
  floats = Cast <to = 1> (ordered)
  gain = Constant <value = float[{config.channels}] {{{scale}}}> ()
  offset = Constant <value = float[{config.channels}] {{{shift}}}> ()
  gained = Mul (floats, gain)
  normal = Add (gained, offset)
  planes = Transpose <perm = [0, 3, 1, 2]> (normal)"""


def _padding(divisor: int, size: tuple[int, int] | None) -> str:
    if size is not None:
        return f"  padded_size = Constant <value = int64[2] {{{size[0]}, {size[1]}}}> ()"
    return f"""\
  divisor = Constant <value = int64 {{{divisor}}}> ()
  rest = Constant <value = int64 {{{divisor - 1}}}> ()
  enough = Add (new_size, rest)
  times = Div (enough, divisor)
  padded_size = Mul (times, divisor)"""


def _resize(name: str, axis: int, source: str, target: str) -> str:
    """One pass; `axis` is 0 for height and 1 for width."""
    shape = "{-1, 1}" if axis == 1 else "{-1, 1, 1}"
    return f"""\
  {name}_axis = Constant <value = int64 {{{axis}}}> ()
  {name}_old = Gather (sides, {name}_axis)
  {name}_new = Gather (new_sides, {name}_axis)
  {name}_count = Gather (new_size, {name}_axis)
  {name}_ratio = Div ({name}_old, {name}_new)
  {name}_index = Range (from_zero, {name}_count, by_one)
  {name}_cells = Cast <to = 11> ({name}_index)
  {name}_middles = Add ({name}_cells, half)
  {name}_far = Mul ({name}_middles, {name}_ratio)
  {name}_near = Sub ({name}_far, half)
  {name}_place = Max ({name}_near, zero)
  {name}_end = Sub ({name}_old, unity)
  {name}_below = Floor ({name}_place)
  {name}_low = Min ({name}_below, {name}_end)
  {name}_above = Add ({name}_low, unity)
  {name}_high = Min ({name}_above, {name}_end)
  {name}_share = Sub ({name}_place, {name}_low)
  {name}_high_weight = Min ({name}_share, unity)
  {name}_low_weight = Sub (unity, {name}_high_weight)
  {name}_larger = Max ({name}_high_weight, {name}_low_weight)
  {name}_largest = ReduceMax <keepdims = 0> ({name}_larger)
  {name}_codes = Mul (powers, {name}_largest)
  {name}_codes_up = Add ({name}_codes, half)
  {name}_codes_whole = Floor ({name}_codes_up)
  {name}_fits = Less ({name}_codes_whole, limit)
  {name}_fits_number = Cast <to = 7> ({name}_fits)
  {name}_bits = ReduceSum <keepdims = 0> ({name}_fits_number)
  {name}_unit = Gather (units, {name}_bits)
  {name}_unit_double = Cast <to = 11> ({name}_unit)
{_tap(name, "low", axis, source, shape)}
{_tap(name, "high", axis, source, shape)}
  {name}_sum = Add ({name}_low_part, {name}_high_part)
  {name}_rounding = Div ({name}_unit, two)
  {name}_raised = Add ({name}_sum, {name}_rounding)
  {name}_levels = Div ({name}_raised, {name}_unit)
  {target} = Cast <to = 2> ({name}_levels)"""


def _tap(name: str, tap: str, axis: int, source: str, shape: str) -> str:
    """What one of the two taps of each pixel adds."""
    return f"""\
  {name}_{tap}_code = Mul ({name}_{tap}_weight, {name}_unit_double)
  {name}_{tap}_code_up = Add ({name}_{tap}_code, half)
  {name}_{tap}_code_whole = Floor ({name}_{tap}_code_up)
  {name}_{tap}_factors = Cast <to = 6> ({name}_{tap}_code_whole)
  {name}_{tap}_shape = Constant <value = int64[{shape.count(",") + 1}] {shape}> ()
  {name}_{tap}_column = Reshape ({name}_{tap}_factors, {name}_{tap}_shape)
  {name}_{tap}_at = Cast <to = 7> ({name}_{tap})
  {name}_{tap}_pixels = Gather <axis = {axis + 1}> ({source}, {name}_{tap}_at)
  {name}_{tap}_values = Cast <to = 6> ({name}_{tap}_pixels)
  {name}_{tap}_part = Mul ({name}_{tap}_values, {name}_{tap}_column)"""
