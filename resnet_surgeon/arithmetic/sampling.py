"""Reproducible random numbers: the same on every machine, in whatever order they are asked for, for good.

Made of the Philox counter generator (whose raw output numpy guarantees) and of additions, multiplications, divisions
and square roots alone, which IEEE 754 rounds the same everywhere; numpy's and libm's own normal deviates and logarithms
promise no such thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_surgeon.arithmetic.elements import encode
from resnet_surgeon.arithmetic.laws import Constant, Law, Uniform
from resnet_surgeon.arithmetic.philox import key

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[Any]]

_CHUNK = 1 << 13  # numbers: what is made on the way to these stays in the cache


def sample(law: Law, count: int, dtype: str, seed: int, stream: str) -> Iterator[bytes]:
    """`count` numbers of the law as little-endian `dtype`, chunk by chunk; `stream` sets the sequences of one seed
    apart.

    Uniform numbers have 24 random bits (a float32's), normal ones 32; they are rounded to `dtype` once.
    """
    for numbers in _numbers(law, count, seed, stream):
        yield encode(numbers, dtype)


def _numbers(law: Law, count: int, seed: int, stream: str) -> Iterator[Floats]:
    if isinstance(law, Constant):
        for size in _sizes(count):
            yield np.full(size, law.value)
        return
    generator = np.random.Philox(key=key(seed, stream))
    for size in _sizes(count):
        raw = generator.random_raw(-(-size // 2)).astype("<u8", copy=False).view("<u4")[:size]
        if isinstance(law, Uniform):
            yield ((raw >> 8) * 2.0**-23 - 1.0) * law.bound
        else:
            yield _normal_quantile((raw + 0.5) * 2.0**-32) * law.std


def _sizes(count: int) -> Iterator[int]:
    for start in range(0, count, _CHUNK):
        yield min(_CHUNK, count - start)


def _polynomial(x: Floats, *coefficients: float) -> Floats:
    """By Horner's scheme, the constant first."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result *= x
        result += coefficient
    return result


def _log(x: Floats) -> Floats:
    """The natural logarithm, from 2 artanh((m - 1) / (m + 1)) with m in [sqrt 1/2, sqrt 2): within 1e-15."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.7071067811865476
    mantissa = np.where(low, mantissa * 2, mantissa)
    s = (mantissa - 1) / (mantissa + 1)
    odd = _polynomial(s * s, *(1 / n for n in range(1, 24, 2)))
    logarithm: Floats = (exponent - low) * 0.6931471805599453 + 2 * s * odd
    return logarithm


def _normal_quantile(p: Floats) -> Floats:
    """The standard normal's quantile function. Wichura 1988, algorithm AS 241 (PPND16), Applied Statistics 37(3)."""
    q = p - 0.5
    r = 0.180625 - q * q
    result: Floats = (
        q
        * _polynomial(
            r,
            3.3871328727963666080, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
            4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
        )
        / _polynomial(
            r,
            1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
            2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
        )
    )  # fmt: skip
    tail = np.abs(q) > 0.425
    distance = np.sqrt(-_log(np.minimum(p[tail], 1 - p[tail])))
    # 32 random bits reach no further than 4.9: the third branch of AS 241 is never needed.
    r = distance - 1.6
    result[tail] = np.copysign(
        _polynomial(
            r,
            1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
            1.27045825245236838258, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
        )
        / _polynomial(
            r,
            1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1,
            1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
        ),
        q[tail],
    )  # fmt: skip
    return result
