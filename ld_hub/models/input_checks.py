"""What is refused of a network's input, where it would fail far from its cause."""

from __future__ import annotations

from torch import Tensor

from ld_hub.errors import ConfigError


def require_images(images: Tensor, in_chans: int) -> None:
    """Refuse what is no batch of images; looks at no values, so it costs nothing and compiles.

    Args:
        images: ``(N, in_chans, H, W)``, normalised.
        in_chans: Channels that the network takes.

    Raises:
        ConfigError: If it is something else; says what, and the way out.
    """
    expected = f"expected normalised floats of shape (N, {in_chans}, H, W)"
    if not isinstance(images, Tensor):
        raise ConfigError(f"The images are a {type(images).__name__}; {expected}. For files use model.predict.")
    if images.ndim != 4 or images.shape[1] != in_chans:
        hint = " One image is a batch of one: image[None]." if images.ndim == 3 else ""
        raise ConfigError(f"The images have the shape {tuple(images.shape)}; {expected}.{hint}")
    if not images.is_floating_point():
        raise ConfigError(
            f"The images are {images.dtype}; {expected}: ld_hub.create_transform(**resolve_data_config(model)) makes "
            "them, and model.predict takes raw pixels."
        )
