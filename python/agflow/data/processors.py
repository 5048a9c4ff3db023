"""The preprocessing that other libraries describe: image processors and transforms of theirs.

Keys are those of transformers' ``preprocessor_config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError

# Numbers of PIL's Resampling, which transformers writes.
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_STEPS = {
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_convert_rgb",
}
_SIDES = ("height", "width")
_UNCROPPED = 384  # from this size on, processors with a crop_pct resize without cropping


def preprocessing_like(source: Any, input_size: tuple[int, int] | None = None) -> Preprocessing:
    """Return the preprocessing that an image processor or a transform of another library does.

    Parameters
    ----------
    source : an image processor of transformers, or the dictionary that it saves
        (``preprocessor_config.json``); or the transforms of torchvision's weights
        (``weights.transforms()``)
    input_size : height and width in pixels that the model takes, where they are not the source's:
        the images are then resized to keep the source's share of the image

    Raises
    ------
    InvalidValueError
        The source is no such thing, or does something that a :class:`Preprocessing` cannot; the
        message names it.

    Examples
    --------
    >>> from agflow.data import preprocessing_like
    >>> found = preprocessing_like(
    ...     {"size": 224, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    ... )
    >>> found.input_size, found.interpolation, found.crop_mode, found.crop_pct
    ((224, 224), 'bilinear', 'squash', 1.0)
    """
    if hasattr(source, "crop_size") and hasattr(source, "resize_size"):
        return _of_torchvision(source, input_size)
    values = source if isinstance(source, Mapping) else getattr(source, "to_dict", dict)()
    if not isinstance(values, Mapping) or "size" not in values:
        raise InvalidValueError(
            f"a {type(source).__name__} is no image processor: expected one of transformers, its "
            "dictionary with the key 'size', or the transforms of torchvision's weights"
        )
    return _of_transformers(values, input_size)


def processor_values(preprocessing: Preprocessing) -> dict[str, Any] | None:
    """Return the ``preprocessor_config.json`` of an image processor that does the same.

    None where no processor of transformers does: for grey images, borders, and a middle that is not
    square.

    Examples
    --------
    >>> from agflow.data import Preprocessing, preprocessing_like
    >>> from agflow.data.processors import processor_values
    >>> preprocessing = Preprocessing((224, 224), (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875)
    >>> values = processor_values(preprocessing)
    >>> values["size"], values["crop_size"]
    ({'shortest_edge': 256}, {'height': 224, 'width': 224})
    >>> preprocessing_like(values) == preprocessing
    True
    """
    height, width = preprocessing.input_size
    whole = [int(side / preprocessing.crop_pct + 1e-6) for side in (height, width)]
    squashes, crops = preprocessing.crop_mode == "squash", whole != [height, width]
    centred = preprocessing.crop_mode == "center" and height == width
    if preprocessing.channels != 3 or not (squashes or centred):
        return None
    kind = (
        "BitImageProcessor" if centred else "DeiTImageProcessor" if crops else "ViTImageProcessor"
    )
    return {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": whole[0]} if centred else dict(zip(_SIDES, whole, strict=True)),
        "resample": _RESAMPLE.index(preprocessing.interpolation),
        "do_center_crop": centred or crops,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def _of_torchvision(source: Any, input_size: tuple[int, int] | None) -> Preprocessing:
    (crop,), (resize,) = source.crop_size, source.resize_size
    return Preprocessing(
        input_size or (crop, crop),
        tuple(source.mean),
        tuple(source.std),
        source.interpolation.value,
        crop / resize,
    )


def _of_transformers(
    values: Mapping[str, Any], input_size: tuple[int, int] | None
) -> Preprocessing:
    unknown = [
        key for key, does in values.items() if key.startswith("do_") and does and key not in _STEPS
    ]
    if values.get("rescale_offset"):
        unknown.append("rescale_offset")
    if unknown or not values.get("do_resize", True):
        raise InvalidValueError(
            f"the image processor has {unknown[0] if unknown else 'do_resize=False'}, which a "
            "Preprocessing cannot do: resize, crop, rescale and normalise alone"
        )
    own_size, crop_pct, crop_mode = _sizes(values)
    mean, std = _normalisation(values)
    return Preprocessing(
        input_size or own_size, mean, std, _interpolation(values), crop_pct, crop_mode
    )


def _sizes(values: Mapping[str, Any]) -> tuple[tuple[int, int], float, str]:
    """Height and width behind the crop, the crop's share of the image, and how it is resized."""
    size, crops = values["size"], values.get("do_center_crop", False)
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        short = int(size["shortest_edge"])
        if crops:
            crop = _edges(values.get("crop_size", short), "crop_size")
            return crop, min(crop) / short, "center"
        if values.get("crop_pct"):
            if short >= _UNCROPPED:
                return (short, short), 1.0, "squash"
            return (short, short), float(values["crop_pct"]), "center"
        raise InvalidValueError(
            f"the image processor resizes the short side to {short} and crops nothing, which "
            "leaves images of any shape; expected a size of height and width, or a crop"
        )
    whole = _edges(size, "size")
    if not crops:
        return whole, 1.0, "squash"
    crop = _edges(values.get("crop_size", size), "crop_size")
    shares = [cropped / side for cropped, side in zip(crop, whole, strict=True)]
    if shares[0] != shares[1]:
        raise InvalidValueError(
            f"the image processor crops {crop[0]}x{crop[1]} of {whole[0]}x{whole[1]} pixels, "
            "expected the same share of height and width"
        )
    return crop, shares[0], "squash"


def _edges(size: Any, name: str) -> tuple[int, int]:
    if isinstance(size, Mapping) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    if isinstance(size, int):
        return size, size
    raise InvalidValueError(
        f"{name} of the image processor is {size!r:.60}, expected a number, or height and width"
    )


def _normalisation(values: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels in [0, 1]; where pixels are scaled otherwise, as much smaller."""
    mean, std = [0.0] * 3, [1.0] * 3
    if values.get("do_normalize", True):
        mean, std = values.get("image_mean"), values.get("image_std")
        if mean is None or std is None:
            raise InvalidValueError(
                "the image processor has no image_mean and image_std, and does not say "
                "do_normalize=False: give its own Preprocessing(input_size, mean, std)"
            )
        mean, std = ([x] * 3 if isinstance(x, int | float) else list(x) for x in (mean, std))
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    scale = 1.0 if abs(255 * factor - 1) < 1e-6 else 255 * factor
    return tuple(x / scale for x in mean), tuple(x / scale for x in std)


def _interpolation(values: Mapping[str, Any]) -> str:
    resample = values.get("resample", "bilinear")
    name = resample if isinstance(resample, str) else None
    if isinstance(resample, int) and 0 <= resample < len(_RESAMPLE):
        name = _RESAMPLE[int(resample)]
    if name not in _RESAMPLE:
        raise InvalidValueError(
            f"resample of the image processor is {resample!r}, expected 0 to 5, the numbers of "
            f"{', '.join(_RESAMPLE)}"
        )
    return name
