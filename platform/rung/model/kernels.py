"""The arithmetic of `rung.model.gate` as Triton kernels: gather, perceptron, derivatives and sum in one pass.

A GPU is limited by what it moves through its memory: these kernels read the parts of each message once, compute its
perceptron again where a derivative needs it, and add the result where it belongs; nothing else of a message leaves the
chip. The formulas and names are those of `rung.model.gate`; core and gate are two (rows, width) tiles.

Tuples of pointers: `terms` and `to_terms` of (first, second, own), `parameters` of (scale, shift, weight, bias), and
`routes` of (first, second, weight, target), None where row r itself is meant. Gradients by the parameters are added to
one of NUM_SLICES copies of `TOTAL` values (scale, shift, weight, bias), so that few programs wait for each other.

Each program handles ROWS messages, without a loop: what does not change in one is kept in registers, and registers are
what these kernels run short of. The second derivative is bound by them, and reads hidden values twice to need fewer.
"""
# ruff: noqa: ANN001, ANN201, ANN202, N803, PLR0913, PLR0917 -- Triton's arguments are tiles and pointers without a
# Python type, its constants are written in capitals, and it has no structures to bundle them in.

import triton
import triton.language as tl

NUM_SLICES = tl.constexpr(128)
_EPSILON = tl.constexpr(1e-5)


@triton.jit
def message(
    terms, weight, parameters, routes, result, num_messages,
    HIDDEN: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum the messages of each target."""
    rows, keep = _rows(num_messages, ROWS)
    where = _where(routes, rows, keep)
    core, gate = _half(terms, where, keep, 0, HIDDEN), _half(terms, where, keep, 1, HIDDEN)
    normal_core, _ = _norm(_outputs(core, parameters, 0, HIDDEN, WIDTH, PRECISION), WIDTH)
    normal_gate, _ = _norm(_outputs(gate, parameters, 1, HIDDEN, WIDTH, PRECISION), WIDTH)
    core = _scaled(normal_core, parameters, 0, WIDTH)
    value = core * tl.sigmoid(core) * tl.sigmoid(_scaled(normal_gate, parameters, 1, WIDTH))
    if weight is not None:
        value *= _read(weight, where[2], keep, 0, WIDTH, WIDTH)
    _write(result, routes[3], where[3], keep, value, 0, WIDTH, WIDTH)


@triton.jit
def message_gradient(
    terms, weight, parameters, routes, gradient, to_terms, to_weight, to_parameters, num_messages,
    TOTAL: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """First derivative; by the parameters only where `TOTAL` is not 0."""
    rows, keep = _rows(num_messages, ROWS)
    where = _where(routes, rows, keep)
    hidden_core, hidden_gate = _half(terms, where, keep, 0, HIDDEN), _half(terms, where, keep, 1, HIDDEN)
    normal_core, inverse_core = _norm(_outputs(hidden_core, parameters, 0, HIDDEN, WIDTH, PRECISION), WIDTH)
    normal_gate, inverse_gate = _norm(_outputs(hidden_gate, parameters, 1, HIDDEN, WIDTH, PRECISION), WIDTH)
    core, core_slope, _ = _silu(_scaled(normal_core, parameters, 0, WIDTH))
    gate = tl.sigmoid(_scaled(normal_gate, parameters, 1, WIDTH))
    weighted = _read(gradient, where[3], keep, 0, WIDTH, WIDTH)
    if weight is not None:
        _write(to_weight, routes[2], where[2], keep, core * gate * weighted, 0, WIDTH, WIDTH)
        weighted *= _read(weight, where[2], keep, 0, WIDTH, WIDTH)
    by_core = core_slope * gate * weighted
    by_gate = gate * (1 - gate) * core * weighted
    by_core_outputs = _through_norm(by_core * _row(parameters[0], 0, WIDTH), normal_core, inverse_core, WIDTH)
    by_gate_outputs = _through_norm(by_gate * _row(parameters[0], 1, WIDTH), normal_gate, inverse_gate, WIDTH)
    if TOTAL:
        _add_norm(to_parameters, TOTAL, 0, by_core * normal_core, by_core, WIDTH)
        _add_norm(to_parameters, TOTAL, 1, by_gate * normal_gate, by_gate, WIDTH)
    _back(terms, parameters, routes, where, keep, by_core_outputs, to_terms, to_parameters, 0,
          TOTAL, HIDDEN, WIDTH, PRECISION)  # fmt: skip
    _back(terms, parameters, routes, where, keep, by_gate_outputs, to_terms, to_parameters, 1,
          TOTAL, HIDDEN, WIDTH, PRECISION)  # fmt: skip


@triton.jit
def message_second_gradient(
    terms, weight, parameters, routes, gradient, along_terms, along_weight,
    to_gradient, to_terms, to_weight, to_parameters, num_messages,
    TOTAL: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Second derivative, by gradient, terms, weight and parameters."""
    rows, keep = _rows(num_messages, ROWS)
    where = _where(routes, rows, keep)
    hidden_core, hidden_gate = _half(terms, where, keep, 0, HIDDEN), _half(terms, where, keep, 1, HIDDEN)
    along_core, along_gate = _half(along_terms, where, keep, 0, HIDDEN), _half(along_terms, where, keep, 1, HIDDEN)
    normal_core, inverse_core = _norm(_outputs(hidden_core, parameters, 0, HIDDEN, WIDTH, PRECISION), WIDTH)
    normal_gate, inverse_gate = _norm(_outputs(hidden_gate, parameters, 1, HIDDEN, WIDTH, PRECISION), WIDTH)
    core_dot = _outputs_dot(along_core, hidden_core, parameters, 0, HIDDEN, WIDTH, PRECISION)
    gate_dot = _outputs_dot(along_gate, hidden_gate, parameters, 1, HIDDEN, WIDTH, PRECISION)
    normal_core_dot = _through_norm(core_dot, normal_core, inverse_core, WIDTH)
    normal_gate_dot = _through_norm(gate_dot, normal_gate, inverse_gate, WIDTH)
    scaled_core_dot = normal_core_dot * _row(parameters[0], 0, WIDTH)
    scaled_gate_dot = normal_gate_dot * _row(parameters[0], 1, WIDTH)

    core, core_slope, core_curve = _silu(_scaled(normal_core, parameters, 0, WIDTH))
    gate = tl.sigmoid(_scaled(normal_gate, parameters, 1, WIDTH))
    gate_slope = gate * (1 - gate)
    dot_by_core, dot_by_gate, both = core_slope * gate, core * gate_slope, core_slope * gate_slope
    by_core = core_curve * gate * scaled_core_dot + both * scaled_gate_dot
    by_gate = (1 - 2 * gate) * dot_by_gate * scaled_gate_dot + both * scaled_core_dot
    change = dot_by_core * scaled_core_dot + dot_by_gate * scaled_gate_dot
    outer = _read(gradient, where[3], keep, 0, WIDTH, WIDTH)
    weighted = outer
    if weight is not None:
        _write(to_weight, routes[2], where[2], keep, outer * change, 0, WIDTH, WIDTH)
        factor = _read(weight, where[2], keep, 0, WIDTH, WIDTH)
        change, by_core, by_gate, weighted = change * factor, by_core * factor, by_gate * factor, outer * factor
        if along_weight is not None:
            along = _read(along_weight, where[2], keep, 0, WIDTH, WIDTH)
            change += core * gate * along
            by_core += dot_by_core * along
            by_gate += dot_by_gate * along
    _write(to_gradient, routes[3], where[3], keep, change, 0, WIDTH, WIDTH)
    _second_back(terms, along_terms, parameters, routes, where, keep, by_core * outer, dot_by_core * weighted,
                 core_dot, normal_core_dot, normal_core, inverse_core, to_terms, to_parameters, 0,
                 TOTAL, HIDDEN, WIDTH, PRECISION)  # fmt: skip
    _second_back(terms, along_terms, parameters, routes, where, keep, by_gate * outer, dot_by_gate * weighted,
                 gate_dot, normal_gate_dot, normal_gate, inverse_gate, to_terms, to_parameters, 1,
                 TOTAL, HIDDEN, WIDTH, PRECISION)  # fmt: skip


@triton.jit
def _second_back(
    terms, along_terms, parameters, routes, where, keep, by_scaled, by_scaled_dot,
    outputs_dot, normal_dot, normal, inverse, to_terms, to_parameters,
    HALF: tl.constexpr, TOTAL: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rest of one half's second derivative: norm, hidden layer, terms."""
    _add_norm(to_parameters, TOTAL, HALF, by_scaled * normal + by_scaled_dot * normal_dot, by_scaled, WIDTH)
    scale = _row(parameters[0], HALF, WIDTH)
    by_dot = by_scaled_dot * scale
    slant = _mean(outputs_dot * normal, WIDTH) * inverse
    pull = _mean(by_dot * normal, WIDTH) * inverse
    spread = _mean(by_dot * normal_dot, WIDTH) * inverse
    by_normal = by_scaled * scale - slant * by_dot - pull * outputs_dot
    by_outputs = _through_norm(by_normal, normal, inverse, WIDTH) - spread * normal
    if parameters[2] is None:
        _write_terms(to_terms, routes, where, keep, by_outputs, HALF, HIDDEN)
    else:
        by_outputs_dot = _through_norm(by_dot, normal, inverse, WIDTH)
        back = _matrix_transposed(parameters[2], HALF, HIDDEN, WIDTH)
        # Read again rather than kept: registers are what these kernels run short of.
        inputs, slope, curve = _silu(_half(terms, where, keep, HALF, HIDDEN))
        along = _half(along_terms, where, keep, HALF, HIDDEN)
        by_inputs = tl.dot(by_outputs, back, input_precision=PRECISION)
        bent = tl.dot(by_outputs_dot, back, input_precision=PRECISION)
        _write_terms(to_terms, routes, where, keep, by_inputs * slope + bent * along * curve, HALF, HIDDEN)
        by_matrix = tl.dot(tl.trans(inputs), by_outputs, input_precision=PRECISION)
        by_matrix = tl.dot(tl.trans(along * slope), by_outputs_dot, by_matrix, input_precision=PRECISION)
        _add_layer(to_parameters, TOTAL, HALF, by_matrix, by_outputs, HIDDEN, WIDTH)


@triton.jit
def _back(
    terms, parameters, routes, where, keep, by_outputs, to_terms, to_parameters,
    HALF: tl.constexpr, TOTAL: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rest of one half's first derivative: hidden layer, terms."""
    if parameters[2] is None:
        _write_terms(to_terms, routes, where, keep, by_outputs, HALF, HIDDEN)
    else:
        back = _matrix_transposed(parameters[2], HALF, HIDDEN, WIDTH)
        inputs, slope, _ = _silu(_half(terms, where, keep, HALF, HIDDEN))
        by_hidden = tl.dot(by_outputs, back, input_precision=PRECISION) * slope
        _write_terms(to_terms, routes, where, keep, by_hidden, HALF, HIDDEN)
        if TOTAL:
            by_matrix = tl.dot(tl.trans(inputs), by_outputs, input_precision=PRECISION)
            _add_layer(to_parameters, TOTAL, HALF, by_matrix, by_outputs, HIDDEN, WIDTH)


@triton.jit
def _rows(num_messages, ROWS: tl.constexpr):
    rows = tl.arange(0, ROWS).to(tl.int64) + tl.program_id(0) * ROWS
    return rows, rows < num_messages


@triton.jit
def _where(routes, rows, keep):
    """Rows of first and second term, weight and target of these messages, and their own."""
    first = tl.load(routes[0] + rows, mask=keep, other=0)
    second = tl.load(routes[1] + rows, mask=keep, other=0)
    weight, target = rows, rows
    if routes[2] is not None:
        weight = tl.load(routes[2] + rows, mask=keep, other=0)
    if routes[3] is not None:
        target = tl.load(routes[3] + rows, mask=keep, other=0)
    return first, second, weight, target, rows


@triton.jit
def _tile(row, START: tl.constexpr, WIDTH: tl.constexpr, STRIDE: tl.constexpr):
    return row[:, None] * STRIDE + (START + tl.arange(0, WIDTH))[None, :]


@triton.jit
def _read(source, row, keep, START: tl.constexpr, WIDTH: tl.constexpr, STRIDE: tl.constexpr):
    return tl.load(source + _tile(row, START, WIDTH, STRIDE), mask=keep[:, None], other=0.0)


@triton.jit
def _write(to, index, row, keep, value, START: tl.constexpr, WIDTH: tl.constexpr, STRIDE: tl.constexpr):
    """Store a tile where each message has its row, else add."""
    if index is None:
        tl.store(to + _tile(row, START, WIDTH, STRIDE), value, mask=keep[:, None])
    else:
        tl.atomic_add(to + _tile(row, START, WIDTH, STRIDE), value, mask=keep[:, None], sem="relaxed")


@triton.jit
def _half(terms, where, keep, HALF: tl.constexpr, HIDDEN: tl.constexpr):
    """Sum of the terms, core or gate."""
    total = tl.zeros((keep.shape[0], HIDDEN), tl.float32)
    if terms[0] is not None:
        total += _read(terms[0], where[0], keep, HALF * HIDDEN, HIDDEN, 2 * HIDDEN)
    if terms[1] is not None:
        total += _read(terms[1], where[1], keep, HALF * HIDDEN, HIDDEN, 2 * HIDDEN)
    if terms[2] is not None:
        total += _read(terms[2], where[4], keep, HALF * HIDDEN, HIDDEN, 2 * HIDDEN)
    return total


@triton.jit
def _write_terms(to_terms, routes, where, keep, value, HALF: tl.constexpr, HIDDEN: tl.constexpr):
    _write(to_terms[0], routes[0], where[0], keep, value, HALF * HIDDEN, HIDDEN, 2 * HIDDEN)
    _write(to_terms[1], routes[1], where[1], keep, value, HALF * HIDDEN, HIDDEN, 2 * HIDDEN)
    _write(to_terms[2], None, where[4], keep, value, HALF * HIDDEN, HIDDEN, 2 * HIDDEN)


@triton.jit
def _row(source, HALF: tl.constexpr, WIDTH: tl.constexpr):
    return tl.load(source + HALF * WIDTH + tl.arange(0, WIDTH))[None, :]


@triton.jit
def _matrix(source, HALF: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr):
    inputs, outputs = tl.arange(0, HIDDEN), tl.arange(0, WIDTH)
    return tl.load(source + HALF * HIDDEN * WIDTH + inputs[:, None] * WIDTH + outputs[None, :])


@triton.jit
def _matrix_transposed(source, HALF: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr):
    return tl.trans(_matrix(source, HALF, HIDDEN, WIDTH))


@triton.jit
def _outputs(
    hidden, parameters, HALF: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr
):
    outputs = hidden
    if parameters[2] is not None:
        matrix = _matrix(parameters[2], HALF, HIDDEN, WIDTH)
        outputs = tl.dot(hidden * tl.sigmoid(hidden), matrix, input_precision=PRECISION)
        outputs += _row(parameters[3], HALF, WIDTH)
    return outputs


@triton.jit
def _outputs_dot(
    along, hidden, parameters,
    HALF: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    outputs_dot = along
    if parameters[2] is not None:
        _, slope, _ = _silu(hidden)
        outputs_dot = tl.dot(along * slope, _matrix(parameters[2], HALF, HIDDEN, WIDTH), input_precision=PRECISION)
    return outputs_dot


@triton.jit
def _mean(values, WIDTH: tl.constexpr):
    return tl.sum(values, axis=1)[:, None] / WIDTH


@triton.jit
def _norm(values, WIDTH: tl.constexpr):
    centred = values - _mean(values, WIDTH)
    inverse = tl.rsqrt(_mean(centred * centred, WIDTH) + _EPSILON)
    return centred * inverse, inverse


@triton.jit
def _scaled(normal, parameters, HALF: tl.constexpr, WIDTH: tl.constexpr):
    return normal * _row(parameters[0], HALF, WIDTH) + _row(parameters[1], HALF, WIDTH)


@triton.jit
def _through_norm(gradient, normal, inverse, WIDTH: tl.constexpr):
    return inverse * (gradient - _mean(gradient, WIDTH) - normal * _mean(gradient * normal, WIDTH))


@triton.jit
def _silu(values):
    """Silu with its first and second derivative."""
    sigmoid = tl.sigmoid(values)
    silu = values * sigmoid
    slope = sigmoid + silu * (1 - sigmoid)
    return silu, slope, (1 - sigmoid) * (slope + sigmoid * (1 - silu))


@triton.jit
def _add_norm(to_parameters, TOTAL: tl.constexpr, HALF: tl.constexpr, scale, shift, WIDTH: tl.constexpr):
    """Add to the gradients by the norm's scale and shift."""
    at = to_parameters + tl.program_id(0) % NUM_SLICES * TOTAL + HALF * WIDTH + tl.arange(0, WIDTH)
    tl.atomic_add(at, tl.sum(scale, axis=0), sem="relaxed")
    tl.atomic_add(at + 2 * WIDTH, tl.sum(shift, axis=0), sem="relaxed")


@triton.jit
def _add_layer(
    to_parameters, TOTAL: tl.constexpr, HALF: tl.constexpr, matrix, outputs, HIDDEN: tl.constexpr, WIDTH: tl.constexpr
):
    """Add to the gradients by the hidden layer's weight and bias."""
    start = to_parameters + tl.program_id(0) % NUM_SLICES * TOTAL + 4 * WIDTH
    row, column = tl.arange(0, HIDDEN)[:, None], tl.arange(0, WIDTH)
    tl.atomic_add(start + (HALF * HIDDEN + row) * WIDTH + column[None, :], matrix, sem="relaxed")
    tl.atomic_add(start + (2 * HIDDEN + HALF) * WIDTH + column, tl.sum(outputs, axis=0), sem="relaxed")
