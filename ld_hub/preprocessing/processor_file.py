"""The preprocessing in the words of the Hub's image processors, for readers other than this library."""

from __future__ import annotations

from ld_hub.preprocessing.data_config import DataConfig

PREPROCESSOR_NAME = "preprocessor_config.json"  # without it, transformers' pipeline takes a directory for no model


def preprocessor_settings(config: DataConfig) -> dict[str, object]:
    """What stands in `PREPROCESSOR_NAME`.

    Args:
        config: Of the model. Loading reads it from ``config.json``, never from here.

    Returns:
        JSON values: short and long side in px, mean and std on the 0..1 scale in the order of the channels.
    """
    short, long = config.image_size
    return {
        "do_resize": True,
        "size": {"shortest_edge": short, "longest_edge": long},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in config.mean],
        "image_std": [value / 255 for value in config.std],
        "channel_order": config.channel_order,
        "do_pad": True,
        "size_divisor": config.size_divisor,
        **({"band_ranges": [list(pair) for pair in config.band_ranges]} if config.band_ranges else {}),
    }
