"""Memory that Go lends for one call, as arrays: nothing here keeps a view of it.

Shape suffixes: B images of a batch, E escalated ones, C, H, W of an image, K classes.
"""

from __future__ import annotations

import numpy as np

from agflow.errors import InvalidValueError, ShapeError


def images_of(lent: memoryview, shape: tuple[int, int, int]) -> np.ndarray:
    """A view of images, float32 [B, C, H, W], whose number follows from their bytes.

    Parameters
    ----------
    shape : channels, height and width

    Raises
    ------
    ShapeError
        These are no whole images, or none.

    Examples
    --------
    >>> from agflow.serving.buffers import images_of
    >>> images_of(memoryview(bytes(96)), (3, 2, 2)).shape
    (2, 3, 2, 2)
    """
    size = 4 * int(np.prod(shape))
    if not lent.nbytes or lent.nbytes % size:
        raise ShapeError(
            f"the images have {lent.nbytes} bytes, expected a multiple of {size}: float32 "
            f"[images, {', '.join(map(str, shape))}], one image at least"
        )
    return np.frombuffer(lent, np.float32).reshape(-1, *shape)


def rows_of(lent: memoryview, images: int, batch: int) -> np.ndarray:
    """A copy of the places, int64 [E], that escalated images have in the last light batch.

    Parameters
    ----------
    images : how many escalated images there are
    batch : how many images that batch had

    Raises
    ------
    ShapeError
        There is not one row for each of them.
    InvalidValueError
        A row is outside of the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from agflow.serving.buffers import rows_of
    >>> rows_of(memoryview(np.array([1, 3], np.int32).tobytes()), images=2, batch=4)
    array([1, 3])
    """
    if lent.nbytes != 4 * images:
        raise ShapeError(
            f"the rows have {lent.nbytes} bytes, expected {4 * images}: int32, one for each of "
            f"{images} escalated images"
        )
    rows_E = np.frombuffer(lent, np.int32).astype(np.int64)
    if rows_E.min() < 0 or rows_E.max() >= batch:
        raise InvalidValueError(
            f"the rows run from {rows_E.min()} to {rows_E.max()}, expected places in the last "
            f"light batch, 0 to {batch - 1}"
        )
    return rows_E


def written_array(lent: memoryview, shape: tuple[int, ...], what: str) -> np.ndarray:
    """A view of memory that an answer is written to, float32 of ``shape``.

    Raises
    ------
    ShapeError
        Its size is another one.

    Examples
    --------
    >>> from agflow.serving.buffers import written_array
    >>> written_array(memoryview(bytearray(80)), (2, 10), "logits").shape
    (2, 10)
    """
    size = 4 * int(np.prod(shape))
    if lent.nbytes != size:
        raise ShapeError(
            f"the memory of the {what} has {lent.nbytes} bytes, expected {size}: float32 "
            f"{list(shape)}"
        )
    return np.frombuffer(lent, np.float32).reshape(shape)
