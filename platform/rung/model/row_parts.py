"""Arithmetic of a block of messages, from which the loops of `rung.model.rows` are made.

The formulas and their names are those of `rung.model.gate`, which works in torch's own operations and is what these
loops are tested against. All floats are float32: every constant is one too, or numba would compute in double precision.
"""

import numba
import numpy as np

_EPSILON = np.float32(1e-5)
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)

# Sums may be reordered and products fused, which vectorising needs; infinities and NaN keep their meaning, so that a
# diverging run is noticed.
OPTIONS = {"error_model": "numpy", "nogil": True, "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
# Parts become code of their caller. Left as functions they would be compiled twice, to other roundings, and a process
# that compiles would call one copy where a process that reads numba's cache calls the other.
part = numba.njit(forceinline=True, **OPTIONS)
_scalar = numba.njit(error_model="numpy", fastmath={"contract", "nsz"}, inline="always")


@_scalar
def _sigmoid(x):
    # exp(-x) = 2^k exp(f) with |f| <= log(2) / 2; the polynomial (Cephes expf) is exact to float32. math.exp would
    # keep the loop from being vectorised.
    x = -x
    # Not min and max, which numba may let lose a NaN.
    x = np.float32(-87.0) if x < np.float32(-87.0) else x  # noqa: FURB136
    x = np.float32(87.0) if x > np.float32(87.0) else x  # noqa: FURB136
    k = np.rint(x * np.float32(1.4426950408889634))
    f = x - k * np.float32(0.693359375)
    f = f + k * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * f + np.float32(1.3981999507e-3)
    p = p * f + np.float32(8.3334519073e-3)
    p = p * f + np.float32(4.1665795894e-2)
    p = p * f + np.float32(1.6666665459e-1)
    p = p * f + np.float32(5.0000001201e-1)
    p = p * f * f + f + np.float32(1)
    power = np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32(1) / (np.float32(1) + p * power)


@part
def silu(values, out):
    x, y = values.reshape(-1), out.reshape(-1)
    for i in range(len(x)):
        y[i] = x[i] * _sigmoid(x[i])


@part
def silu_gradient(values, gradient, out):
    """Turn the gradient by the values' silu, which goes to `out`, into that by the values."""
    x, g, y = values.reshape(-1), gradient.reshape(-1), out.reshape(-1)
    for i in range(len(x)):
        s = _sigmoid(x[i])
        silu = x[i] * s
        g[i] *= s + silu * (_ONE - s)
        y[i] = silu


@part
def silu_second(values, direction, gradient, by_values, pulled):
    """Turn directions into those of the silu.

    `by_values` becomes the gradient by the values of <gradient, direction>, `pulled` that by the direction.
    """
    x, u, g = values.reshape(-1), direction.reshape(-1), gradient.reshape(-1)
    by, p = by_values.reshape(-1), pulled.reshape(-1)
    for i in range(len(x)):
        s = _sigmoid(x[i])
        silu = x[i] * s
        slope = s + silu * (_ONE - s)
        by[i] = u[i] * g[i] * ((_ONE - s) * (slope + s * (_ONE - silu)))
        p[i] = slope
    for i in range(len(x)):
        u[i] *= p[i]
        p[i] *= g[i]


@part
def add(total, part):
    t, p = total.reshape(-1), part.reshape(-1)
    for i in range(len(t)):
        t[i] += p[i]


@part
def copy(to, values):
    for j in range(len(to)):
        to[j] = values[j]


@part
def add_rows(total, rows):
    for row in range(rows.shape[0]):
        part = rows[row]
        for j in range(len(total)):
            total[j] += part[j]


@part
def _normalize(values, bias):
    """Normalise a row in place; return the inverse of its spread."""
    width = len(values)
    total = _ZERO
    for j in range(width):
        values[j] += bias[j]
        total += values[j]
    mean, squares = total / np.float32(width), _ZERO
    for j in range(width):
        values[j] -= mean
        squares += values[j] * values[j]
    inverse = _ONE / np.sqrt(squares / np.float32(width) + _EPSILON)
    for j in range(width):
        values[j] *= inverse
    return inverse


@part
def gate(routing, weight, perceptron, kept, start, stop, result):
    """Normalise, gate, weight and sum some messages."""
    scale, shift = perceptron.scale, perceptron.shift
    for row in range(start, stop):
        core, gate = kept.normal[0, row], kept.normal[1, row]
        kept.inverse[0, row] = _normalize(core, perceptron.bias[0])
        kept.inverse[1, row] = _normalize(gate, perceptron.bias[1])
        w, total = weight[routing.weight[row]], result[routing.target[row]]
        for j in range(len(core)):
            z = core[j] * scale[0, j] + shift[0, j]
            total[j] += z * _sigmoid(z) * _sigmoid(gate[j] * scale[1, j] + shift[1, j]) * w[j]


@part
def _multiply(values, factors):
    for j in range(len(values)):
        values[j] *= factors[j]


@part
def _through_norm(values, normal, inverse):
    """Multiply a row by the derivative of the normalisation, in place."""
    width, total, along = len(values), _ZERO, _ZERO
    for j in range(width):
        total += values[j]
        along += values[j] * normal[j]
    mean, slant = total / np.float32(width), along / np.float32(width)
    for j in range(width):
        values[j] = inverse * (values[j] - mean - normal[j] * slant)


@part
def _add_norm(shift, scale, gradient, normal):
    """Add a row's part to the gradients by shift and scale."""
    for j in range(len(shift)):
        shift[j] += gradient[j]
        scale[j] += gradient[j] * normal[j]


@part
def gate_gradient(routing, weight, perceptron, kept, gradient, start, stop, back, found):
    """Gradient by the hidden layer's outputs of some messages, into `back`."""
    scale, shift = perceptron.scale, perceptron.shift
    for row in range(start, stop):
        core, gate = kept.normal[0, row], kept.normal[1, row]
        by_core, by_gate = back[0, row - start], back[1, row - start]
        g, w, by_w = gradient[routing.target[row]], weight[routing.weight[row]], found.weight[routing.weight[row]]
        for j in range(len(core)):
            z = core[j] * scale[0, j] + shift[0, j]
            s, opening = _sigmoid(z), _sigmoid(gate[j] * scale[1, j] + shift[1, j])
            silu = z * s
            by_w[j] += g[j] * silu * opening
            weighted = g[j] * w[j] * opening
            by_core[j] = weighted * (s + silu * (_ONE - s))
            by_gate[j] = weighted * silu * (_ONE - opening)
        if found.perceptron.scale.shape[0] > 0:
            for half in range(2):
                by = found.perceptron
                _add_norm(by.shift[half], by.scale[half], back[half, row - start], kept.normal[half, row])
        for half in range(2):
            _multiply(back[half, row - start], scale[half])
            _through_norm(back[half, row - start], kept.normal[half, row], kept.inverse[half, row])


@part
def gate_second(routing, weight, perceptron, kept, gradient, start, stop, outputs_dot, back, found):  # noqa: C901
    """Second derivatives of some messages by all but their terms; their first by the outputs, into `back`."""
    scale, shift = perceptron.scale, perceptron.shift
    dots, spare = np.empty((2, scale.shape[1]), np.float32), np.empty((3, scale.shape[1]), np.float32)
    sigmoids, silus, openings = spare[0], spare[1], spare[2]
    by_sums, along = gradient
    learns = found.perceptron.scale.shape[0] > 0
    for row in range(start, stop):
        core, gate = kept.normal[0, row], kept.normal[1, row]
        for half in range(2):
            copy(dots[half], outputs_dot[half, row - start])
            _through_norm(dots[half], kept.normal[half, row], kept.inverse[half, row])
        core_dot, gate_dot = dots[0], dots[1]
        by_core, by_gate = found.by_outputs[0, row], found.by_outputs[1, row]
        by_core_dot, by_gate_dot = back[0, row - start], back[1, row - start]
        target, of_weight = routing.target[row], routing.weight[row]
        g, w, v = by_sums[target], weight[of_weight], along[of_weight]
        by_g, by_w = found.by_sums[target], found.weight[of_weight]
        # Several short loops: with more arrays in one, the compiler gives up proving that they do not overlap.
        for j in range(len(core)):
            z = core[j] * scale[0, j] + shift[0, j]
            sigmoids[j] = _sigmoid(z)
            silus[j] = z * sigmoids[j]
        for j in range(len(core)):
            openings[j] = _sigmoid(gate[j] * scale[1, j] + shift[1, j])
        for j in range(len(core)):
            # `opening` factors out of every term: the sigmoid's slope is opening * (1 - opening).
            s, silu, opening = sigmoids[j], silus[j], openings[j]
            slope = s + silu * (_ONE - s)
            z_dot, open_dot = core_dot[j] * scale[0, j], gate_dot[j] * scale[1, j] * (_ONE - opening)
            change = opening * (slope * z_dot + silu * open_dot)
            by_g[j] += w[j] * change + silu * opening * v[j]
            by_w[j] += g[j] * change
        for j in range(len(core)):
            s, silu, opening = sigmoids[j], silus[j], openings[j]
            slope = s + silu * (_ONE - s)
            weighted = g[j] * w[j] * opening
            by_core_dot[j] = weighted * slope
            by_gate_dot[j] = weighted * silu * (_ONE - opening)
        for j in range(len(core)):
            s, silu, opening = sigmoids[j], silus[j], openings[j]
            slope = s + silu * (_ONE - s)
            curvature = (_ONE - s) * (slope + s * (_ONE - silu))
            z_dot, open_dot = core_dot[j] * scale[0, j], gate_dot[j] * scale[1, j] * (_ONE - opening)
            by_core[j] = opening * g[j] * (w[j] * (curvature * z_dot + slope * open_dot) + v[j] * slope)
        for j in range(len(core)):
            s, silu, opening = sigmoids[j], silus[j], openings[j]
            slope, closed = s + silu * (_ONE - s), _ONE - opening
            z_dot, open_dot = core_dot[j] * scale[0, j], gate_dot[j] * scale[1, j] * closed
            bent = silu * (_ONE - _TWO * opening) * open_dot + slope * closed * z_dot
            by_gate[j] = opening * g[j] * (w[j] * bent + v[j] * silu * closed)
        for half in range(2):
            normal, dot = kept.normal[half, row], dots[half]
            by, by_dot = found.by_outputs[half, row], back[half, row - start]
            if learns:
                _add_norm(found.perceptron.shift[half], found.perceptron.scale[half], by, normal)
                _add_norm(spare[0], found.perceptron.scale[half], by_dot, dot)  # the shift has no part in it
            _multiply(by, scale[half])
            _multiply(by_dot, scale[half])
            _norm_second(by, by_dot, outputs_dot[half, row - start], dot, normal, kept.inverse[half, row])


@part
def _norm_second(by, by_dot, y_dot, n_dot, normal, inverse):
    """Through a normalisation that bends, as its slope depends on mean and spread: `by` and `by_dot` in place."""
    width = len(by)
    slant, pull, spread = _ZERO, _ZERO, _ZERO
    for j in range(width):
        slant += y_dot[j] * normal[j]
        pull += by_dot[j] * normal[j]
        spread += by_dot[j] * n_dot[j]
    factor = inverse / np.float32(width)
    slant, pull, spread = slant * factor, pull * factor, spread * factor
    for j in range(width):
        by[j] -= slant * by_dot[j] + pull * y_dot[j]
    _through_norm(by, normal, inverse)
    for j in range(width):
        by[j] -= spread * normal[j]
    _through_norm(by_dot, normal, inverse)
