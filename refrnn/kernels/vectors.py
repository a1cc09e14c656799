"""LLVM vectors with operators, so that a cell reads like its formula; tanh and sigmoid on them.

Every operation is emitted by name and rounds as IEEE 754 says; no fast-math flag is set, so LLVM
may neither reorder nor fuse. The same formula gives the same bits in every lane and every tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llvmlite import ir

I32 = ir.IntType(32)
I64 = ir.IntType(64)


class Format(NamedTuple):
    """A floating format, `lanes` at a time, and the constants of its exponential.

    polynomial  p in e^r = 1 + r + r^2 p(r), |r| <= ln(2) / 2; as a value of e^r - 1 it has a
                relative error of 2^-26 in float32 (the least possible) and 2^-60 in float64
    ln2         in two parts; the first has zeros at its end, so that its product with a whole
                number is exact
    underflow   e^-x is 0 for every x beyond
    saturation  tanh is 1 for every x beyond
    """

    type: Any
    bits: int
    mantissa: int
    lanes: int
    fma: bool
    polynomial: Sequence[float]
    ln2: tuple[float, float]
    underflow: float
    saturation: float

    @property
    def vector(self) -> Any:
        return ir.VectorType(self.type, self.lanes)

    @property
    def integer(self) -> Any:
        return ir.VectorType(ir.IntType(self.bits), self.lanes)

    @property
    def size(self) -> int:
        """Bytes of one number."""
        return self.bits // 8

    @property
    def bytes(self) -> int:
        """Bytes of one vector."""
        return self.size * self.lanes


def float32(lanes: int, fma: bool) -> Format:
    return Format(
        ir.FloatType(), 32, 23, lanes, fma,
        polynomial=(
            0.5, 0.16666548521728253, 0.04166685452509943, 0.008366066793771105,
            0.0013898230241327625,
        ),
        ln2=(0.693145751953125, 1.428606820309417e-06),
        underflow=104.0,
        saturation=10.0,
    )  # fmt: skip


def float64(lanes: int, fma: bool) -> Format:
    return Format(
        ir.DoubleType(), 64, 52, lanes, fma,
        polynomial=(
            0.5, 0.1666666666666667, 0.04166666666666667, 0.008333333333326112,
            0.001388888888888373, 0.0001984126987490126, 2.4801587325605324e-05,
            2.7557255297969643e-06, 2.755727357010214e-07, 2.5105259538448494e-08,
            2.0914717341716378e-09,
        ),
        ln2=(6.93147180369123816490e-01, 1.90821492927058770002e-10),
        underflow=746.0,
        saturation=20.0,
    )  # fmt: skip


class Vector:
    """One LLVM value of vector type, with operators; a number beside it is a constant."""

    def __init__(self, code: Code, value: Any) -> None:
        self.code = code
        self.value = value

    def _of(self, other: Vector | float) -> Any:
        return other.value if isinstance(other, Vector) else self.code.constant(other).value

    def __add__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.builder.fadd(self.value, self._of(other)))

    def __sub__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.builder.fsub(self.value, self._of(other)))

    def __rsub__(self, other: float) -> Vector:
        return Vector(self.code, self.code.builder.fsub(self._of(other), self.value))

    def __mul__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.builder.fmul(self.value, self._of(other)))

    def __rtruediv__(self, other: float) -> Vector:
        return Vector(self.code, self.code.builder.fdiv(self._of(other), self.value))

    def __truediv__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.builder.fdiv(self.value, self._of(other)))

    def times_plus(self, factor: Vector | float, summand: Vector | float) -> Vector:
        """self * factor + summand, with one rounding where the machine has FMA."""
        if not self.code.form.fma:
            return self * factor + summand
        return self.code.call("fma", self, self._of(factor), self._of(summand))

    def at_least(self, low: float) -> Vector:
        """The larger one; NaN stays."""
        b, bound = self.code.builder, self._of(low)
        return Vector(
            self.code, b.select(b.fcmp_ordered("<", self.value, bound), bound, self.value)
        )

    def __abs__(self) -> Vector:
        return self.code.call("fabs", self)

    def __neg__(self) -> Vector:
        return Vector(self.code, self.code.builder.fneg(self.value))

    def with_sign_of(self, other: Vector) -> Vector:
        return self.code.call("copysign", self, other.value)


@dataclass(frozen=True)
class Ratio:
    """A fraction that is divided last: factors share a division, and 1 - self loses no digits.

    top, bottom  the fraction; for tanh and sigmoid |top| <= 1 <= bottom <= 2: nothing overflows
    rest         bottom - top, where it is known exactly or better than by subtracting
    """

    top: Vector
    bottom: Vector
    rest: Vector | None = None

    def __mul__(self, other: Any) -> Ratio:
        if isinstance(other, Ratio):
            return Ratio(self.top * other.top, self.bottom * other.bottom)
        return Ratio(self.top * other, self.bottom)

    def __add__(self, other: Any) -> Vector:
        return self.value + (other.value if isinstance(other, Ratio) else other)

    def __rsub__(self, one: int) -> Ratio:
        assert one == 1
        assert self.rest is not None
        return Ratio(self.rest, self.bottom, self.top)

    @property
    def value(self) -> Vector:
        return self.top / self.bottom


class Code:
    """What emits vector code of one format into one function."""

    def __init__(self, builder: Any, form: Format) -> None:
        self.builder = builder
        self.form = form

    def constant(self, number: float) -> Vector:
        form = self.form
        return Vector(self, ir.Constant(form.vector, [float(number)] * form.lanes))

    def call(self, name: str, first: Vector, *others: Any) -> Vector:
        """The LLVM intrinsic `name` on vectors."""
        kind = self.form.vector
        suffix = f"v{self.form.lanes}f{self.form.bits}"
        function = self.intrinsic(f"llvm.{name}.{suffix}", kind, [kind] * (1 + len(others)))
        return Vector(self, self.builder.call(function, [first.value, *others]))

    def intrinsic(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        module = self.builder.module
        if name in module.globals:
            return module.globals[name]
        return ir.Function(module, ir.FunctionType(result, arguments), name)

    # --- memory: an address is an i64 ---

    def address(self, base: Any, *terms: tuple[Any, int]) -> Any:
        """base + the sum of count * step over (count, step)."""
        for count, step in terms:
            if step:
                base = self.builder.add(base, self.builder.mul(count, I64(step)))
        return base

    def _pointer(self, address: Any, kind: Any) -> Any:
        return self.builder.inttoptr(address, kind.as_pointer())

    def word(self, address: Any) -> Any:
        """The int64 at an address."""
        found = self.builder.load(self._pointer(address, I64))
        found.align = 8
        return found

    def load(self, address: Any) -> Vector:
        found = self.builder.load(self._pointer(address, self.form.vector))
        found.align = self.form.size
        return Vector(self, found)

    def store(self, vector: Vector, address: Any) -> None:
        done = self.builder.store(vector.value, self._pointer(address, self.form.vector))
        done.align = self.form.size

    def spread(self, address: Any) -> Vector:
        """The number at an address, in every lane."""
        number = self.builder.load(self._pointer(address, self.form.type))
        number.align = self.form.size
        blank = ir.Constant(self.form.vector, ir.Undefined)
        first = self.builder.insert_element(blank, number, I32(0))
        everywhere = ir.Constant(ir.VectorType(I32, self.form.lanes), [0] * self.form.lanes)
        return Vector(self, self.builder.shuffle_vector(first, blank, everywhere))

    def load_some(self, address: Any, count: Any) -> Vector:
        """The first `count` lanes; memory of the others is not touched."""
        # a masked load wants to know what the other lanes hold
        zeros = self.constant(0.0).value
        kind = self.form.vector
        return self.choose(
            self._whole(count),
            lambda: [self.load(address)],
            lambda: [Vector(self, self._masked("load", kind, address, count, [], [zeros]))],
        )[0]

    def store_some(self, vector: Vector, address: Any, count: Any) -> None:
        with self.builder.if_else(self._whole(count)) as (then, otherwise):
            with then:
                self.store(vector, address)
            with otherwise:
                self._masked("store", ir.VoidType(), address, count, [vector.value], [])

    def first(self, vector: Vector, count: Any) -> Vector:
        """The vector with zeros in all but its first `count` lanes."""
        zeros = self.constant(0.0).value
        return Vector(self, self.builder.select(self._below(count), vector.value, zeros))

    def _below(self, count: Any) -> Any:
        """Which lanes are among the first `count`."""
        b, lanes = self.builder, self.form.lanes
        number = ir.VectorType(I32, lanes)
        blank = ir.Constant(number, ir.Undefined)
        counts = b.insert_element(blank, b.trunc(count, I32), I32(0))
        counts = b.shuffle_vector(counts, blank, ir.Constant(number, [0] * lanes))
        return b.icmp_signed("<", ir.Constant(number, list(range(lanes))), counts)

    def _whole(self, count: Any) -> Any:
        return self.builder.icmp_signed(">=", count, I64(self.form.lanes))

    def _masked(
        self, name: str, result: Any, address: Any, count: Any, before: list[Any], after: list[Any]
    ) -> Any:
        """llvm.masked.load or .store of the first `count` lanes."""
        lanes = self.form.lanes
        pointer = self._pointer(address, self.form.vector)
        arguments = [*before, pointer, I32(self.form.size), self._below(count), *after]
        function = self.intrinsic(
            f"llvm.masked.{name}.v{lanes}f{self.form.bits}.p0", result, [a.type for a in arguments]
        )
        return self.builder.call(function, arguments)

    # --- control ---

    def loop(
        self, count: Any, start: list[Vector], body: Callable[[Any, list[Vector]], list[Vector]]
    ) -> list[Vector]:
        """carried = body(k, carried) for k = 0 ... count - 1, from `start`."""
        b = self.builder
        before = b.block
        head, inside, after = (b.append_basic_block(n) for n in ("loop", "body", "done"))
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(I64)
        k.add_incoming(I64(0), before)
        carried = []
        for vector in start:
            phi = b.phi(self.form.vector)
            phi.add_incoming(vector.value, before)
            carried.append(phi)
        b.cbranch(b.icmp_signed("<", k, count), inside, after)
        b.position_at_end(inside)
        for phi, vector in zip(carried, body(k, [Vector(self, p) for p in carried]), strict=True):
            phi.add_incoming(vector.value, b.block)
        k.add_incoming(b.add(k, I64(1)), b.block)
        b.branch(head)
        b.position_at_end(after)
        return [Vector(self, p) for p in carried]

    def choose(
        self, condition: Any, yes: Callable[[], list[Vector]], no: Callable[[], list[Vector]]
    ) -> list[Vector]:
        """The vectors that `yes` makes if the condition holds, else those that `no` makes."""
        b = self.builder
        with b.if_else(condition) as (then, otherwise):
            with then:
                ones, after_yes = yes(), b.block
            with otherwise:
                others, after_no = no(), b.block
        chosen = []
        for one, other in zip(ones, others, strict=True):
            phi = b.phi(self.form.vector)
            phi.add_incoming(one.value, after_yes)
            phi.add_incoming(other.value, after_no)
            chosen.append(Vector(self, phi))
        return chosen

    def each(self, count: Any, body: Callable[[Any], None]) -> None:
        """body(k) for k = 0 ... count - 1."""

        def nothing_carried(k: Any, carried: list[Vector]) -> list[Vector]:
            body(k)
            return carried

        self.loop(count, [], nothing_carried)


# --- the elementary functions ---


def _exponential(y: Vector) -> tuple[Vector, Any]:
    """(q, n) with e^y = 2^n (1 + q); y <= 0. n are the bits of 1.5 * 2^mantissa + n."""
    form = y.code.form
    magic = 1.5 * 2.0**form.mantissa  # adding it rounds to a whole number
    shifted = y.times_plus(1.4426950408889634, magic)
    n = shifted - magic
    r = n.times_plus(-form.ln2[1], n.times_plus(-form.ln2[0], y))
    p = y.code.constant(form.polynomial[-1])
    for coefficient in form.polynomial[-2::-1]:
        p = p.times_plus(r, coefficient)
    return (r * r).times_plus(p, r), y.code.builder.bitcast(shifted.value, form.integer)


def _power(code: Code, n: Any, times: float) -> Vector:
    """2^n * times, which must be a normal number; n as `_exponential` returns it."""
    form, b = code.form, code.builder
    places = ir.Constant(form.integer, [form.mantissa] * form.lanes)
    factor = b.bitcast(code.constant(times).value, form.integer)
    return Vector(code, b.bitcast(b.add(b.shl(n, places), factor), form.vector))


def sigmoid(x: Vector) -> Ratio:
    """1 / (1 + e^-x) for x >= 0 and e^x / (1 + e^x) below, from e = e^-|x|: never overflows."""
    code = x.code
    up, down = 2.0**64, 2.0**-64  # 2^n may be subnormal: it is made too large, and scaled back
    q, n = _exponential((-abs(x)).at_least(-code.form.underflow))
    scale = _power(code, n, up)
    scaled = q.times_plus(scale, scale)
    bottom = scaled.times_plus(down, 1.0)  # 1 + e
    slip = scaled.times_plus(-down, bottom - 1.0)  # what its rounding added; e gets it as well
    e = (q + slip).times_plus(scale, scale) * down
    negative = code.builder.fcmp_ordered("<", x.value, code.constant(0.0).value)
    one = code.constant(1.0)
    top = Vector(code, code.builder.select(negative, e.value, one.value))
    rest = Vector(code, code.builder.select(negative, one.value, e.value))
    return Ratio(top, bottom, rest)


def tanh(x: Vector) -> Ratio:
    """(1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x, from e^-2|x| - 1: small x keep digits.

    Above and below are rounded apart: 2 + (e^-2|x| - 1) would have the error of both.
    """
    return _tanh_and_parts(x)[0]


def _tanh_and_parts(x: Vector) -> tuple[Ratio, Vector, Vector, Vector]:
    """tanh, y = -|x| or where it saturates, and (q, s) with e^2y = s (1 + q)."""
    y = (-abs(x)).at_least(-x.code.form.saturation)
    q, n = _exponential(y + y)
    scale = _power(x.code, n, 1.0)
    top = q.times_plus(scale, scale - 1.0)
    return Ratio(top.with_sign_of(x), q.times_plus(scale, scale + 1.0)), y, q, scale


def tanh_and_slope(x: Vector) -> tuple[Ratio, Ratio]:
    """tanh, and its derivative 4 e^-2|x| / (1 + e^-2|x|)^2, which is 0 where tanh saturates."""
    b, end, zero = x.code.builder, x.code.constant(-x.code.form.saturation), x.code.constant(0.0)
    value, y, q, scale = _tanh_and_parts(x)
    saturated = b.fcmp_ordered("==", y.value, end.value)
    e = Vector(x.code, b.select(saturated, zero.value, q.times_plus(scale, scale).value))
    return value, Ratio(e * 4.0, value.bottom * value.bottom)


def reciprocals(numbers: Sequence[Vector]) -> list[Vector]:
    """1 / each, by one division; their product must not overflow."""
    if len(numbers) == 1:
        return [1.0 / numbers[0]]
    products = [a * b for a, b in zip(numbers[::2], numbers[1::2], strict=False)]
    odd = numbers[len(numbers) - len(numbers) % 2 :]
    found = []
    for n, by in enumerate(reciprocals([*products, *odd])):
        pair = numbers[2 * n : 2 * n + 2]
        found += [by * pair[1], by * pair[0]] if len(pair) == 2 else [by]
    return found
