"""The way back of a cell on vectors of units, and the tiles of its products.

What a step back needs of the step forwards is how fast everything moves: the slopes that the
formulas of the forward pass keep. So its own formulas are products alone; they say what
`refrnn.backward.equations` says of arrays.

Sums have one order here too: each is made by one accumulator from zero, over k = 0, 1, 2, ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from refrnn.kernels import backplan as plan
from refrnn.kernels.tiles import new_function, shapes
from refrnn.kernels.vectors import I64, Code, Format, Vector

Vectors = list[Vector]


class Back(NamedTuple):
    """What a formula makes: the gradients of sums and states.

    x, u    of the sums of the input and of the state, a vector a gate
    direct  of the state before, but for what goes through its sums; None for zeros
    c       of the cell state before, of an LSTM
    """

    x: Vectors
    u: Vectors
    direct: Vector | None = None
    c: Vector | None = None


def simple(kept: Vectors, dh: Vector, dc: Vector) -> Back:
    dz = [dh * kept[0]]
    return Back(dz, dz)


def lstm(kept: Vectors, dh: Vector, dc: Vector) -> Back:
    by_i, by_f, by_g, by_o, by_squash, by_c = kept
    dc = dc + dh * by_squash
    dz = [dc * by_i, dc * by_f, dc * by_g, dh * by_o]
    return Back(dz, dz, c=dc * by_c)


def gru(kept: Vectors, dh: Vector, dc: Vector) -> Back:
    by_z, by_r, by_g, by_u, by_h = kept
    z, r = dh * by_z, dh * by_r
    return Back([z, r, dh * by_g], [z, r, dh * by_u], direct=dh * by_h)


class Way(NamedTuple):
    """The way back of a cell.

    formula  (kept, dh, dc) -> Back; dc is zero but for an LSTM
    gates    vectors of Back.x, and of Back.u
    kept     vectors that the step forwards keeps
    apart    whether Back.x and Back.u differ
    carries  whether there is a Back.c
    """

    formula: Callable[[Vectors, Vector, Vector], Back]
    gates: int
    kept: int
    apart: bool = False
    carries: bool = False


WAYS: dict[str, Way] = {
    "simple": Way(simple, 1, 1),
    "gru": Way(gru, 3, 5, apart=True),
    "lstm": Way(lstm, 4, 6, carries=True),
}


def step_back(module: Any, form: Format, name: str) -> Any:
    """The LLVM function of a cell's formula, added to `module` once.

        void step(plan, numbers, rows)

    on the rows numbers[0] ... of the plan's arrays. The gradients of the sums of row numbers[r] go
    to plan.DX + r * plan.SLOT and plan.DU + r * plan.SLOT, in the order [gate][block][lane], with
    zeros in the lanes beyond the last unit. The sum of all that has come to plan.DIRECT, plan.SUMS
    and plan.DOUT and of plan.DY is the gradient of the step's output.
    """
    if f"refrnn_{name}_back" in module.globals:
        return module.globals[f"refrnn_{name}_back"]
    way = WAYS[name]
    function, b = new_function(module, f"{name}_back", 3)
    base, numbers, rows = function.args
    code = Code(b, form)

    def entry(slot: int) -> Any:
        return code.word(code.address(base, (I64(8), slot)))

    units, slot, dx, du = (entry(e) for e in (plan.UNITS, plan.SLOT, plan.DX, plan.DU))
    arrays = {e: (entry(e), entry(e + 1)) for e in (plan.KEPT, plan.DY)}
    own_row = entry(plan.OWN_ROW)
    own = {e: entry(e) for e in (plan.DIRECT, plan.SUMS, plan.DOUT, plan.DC)}
    blocks = b.sdiv(b.add(units, I64(form.lanes - 1)), I64(form.lanes))
    zero = code.constant(0.0)

    def one_vector(r: Any, u: Any) -> None:
        number = code.word(code.address(numbers, (r, 8)))
        left = b.sub(units, b.mul(u, I64(form.lanes)))

        def row_of(e: int) -> Any:
            first, row = arrays[e]
            return b.add(first, b.mul(number, row))

        def place(e: int) -> Any:
            return code.address(b.add(own[e], b.mul(number, own_row)), (u, form.bytes))

        dy = code.load_some(code.address(row_of(plan.DY), (u, form.bytes)), left)
        doutput = code.load(place(plan.DOUT)) + dy
        dh = (code.load(place(plan.DIRECT)) + code.load(place(plan.SUMS))) + doutput
        at = code.address(row_of(plan.KEPT), (u, way.kept * form.bytes))
        kept = [code.load(code.address(at, (I64(k), form.bytes))) for k in range(way.kept)]
        made = way.formula(kept, dh, code.load(place(plan.DC)) if way.carries else zero)
        for target, parts in [(dx, made.x), (du, made.u)][: 1 + way.apart]:
            at = code.address(b.add(target, b.mul(r, slot)), (u, form.bytes))
            for part in parts:
                code.store(code.first(part, left), at)
                at = code.address(at, (blocks, form.bytes))
        code.store(made.direct or zero, place(plan.DIRECT))
        code.store(zero, place(plan.DOUT))
        if made.c:
            code.store(made.c, place(plan.DC))

    code.each(rows, lambda r: code.each(blocks, lambda u: one_vector(r, u)))
    b.ret_void()
    return function


def product_tile(module: Any, form: Format, rows: int, blocks: int) -> Any:
    """The LLVM function of one tile of a product, added to `module`.

        void product(numbers, factor, factor_row, count, panel, panel_block, target, target_row,
                     left)

    target[numbers[r]][u] = sum over k < count of factor[r][k] * panel[u][k], u a vector; of the
    last vector of a row only the numbers before `left`, which counts from the tile's first.
    """
    function, b = new_function(module, f"product_{rows}x{blocks}", 9)
    numbers, factor, factor_row, count, panel, panel_block, target, target_row, left = function.args
    code = Code(b, form)
    factors = [code.address(factor, (factor_row, r)) for r in range(rows)]
    panels = [code.address(panel, (panel_block, u)) for u in range(blocks)]

    def add_products(k: Any, sums: Vectors) -> Vectors:
        sums = list(sums)
        spread = [code.spread(code.address(row, (k, form.size))) for row in factors]
        for u in range(blocks):
            vector = code.load(code.address(panels[u], (k, form.bytes)))
            for r in range(rows):
                sums[r * blocks + u] = vector.times_plus(spread[r], sums[r * blocks + u])
        return sums

    zeros = [code.constant(0.0)] * (rows * blocks)
    for s, total in enumerate(code.loop(count, zeros, add_products)):
        r, u = divmod(s, blocks)
        number = code.word(code.address(numbers, (I64(r), 8)))
        place = code.address(b.add(target, b.mul(number, target_row)), (I64(u), form.bytes))
        code.store_some(total, place, b.sub(left, I64(u * form.lanes)))
    b.ret_void()
    return function


def outer_tile(module: Any, form: Format, rows: int, blocks: int) -> Any:
    """The LLVM function of one tile of a sum of outer products, added to `module`.

        void outer(factors, offset, count, vectors, vectors_row, target, target_row)

    target[r][u] += sum over k < count of factors[k][r] * vectors[k][u], where factors[k] is an
    address, `offset` bytes before its number of r = 0, and u a vector.
    """
    function, b = new_function(module, f"outer_{rows}x{blocks}", 7)
    factors, offset, count, vectors, vectors_row, target, target_row = function.args
    code = Code(b, form)

    def add_products(k: Any, sums: Vectors) -> Vectors:
        sums = list(sums)
        factor = b.add(offset, code.word(code.address(factors, (k, 8))))
        spread = [code.spread(code.address(factor, (I64(r), form.size))) for r in range(rows)]
        row = b.add(vectors, b.mul(k, vectors_row))
        for u in range(blocks):
            vector = code.load(code.address(row, (I64(u), form.bytes)))
            for r in range(rows):
                sums[r * blocks + u] = vector.times_plus(spread[r], sums[r * blocks + u])
        return sums

    zeros = [code.constant(0.0)] * (rows * blocks)
    for s, total in enumerate(code.loop(count, zeros, add_products)):
        r, u = divmod(s, blocks)
        place = code.address(target, (target_row, r), (I64(u), form.bytes))
        code.store(code.load(place) + total, place)
    b.ret_void()
    return function


ARGUMENTS = {"product": 9, "outer": 7}  # of a tile


def any_tile(module: Any, form: Format, kind: str, registers: int) -> Any:
    """The LLVM function that calls a tile of so many rows and blocks, added to `module` once.

    void any(rows, blocks, arguments of the tile)
    """
    if f"refrnn_{kind}" in module.globals:
        return module.globals[f"refrnn_{kind}"]
    function, b = new_function(module, kind, 2 + ARGUMENTS[kind])
    rows, blocks, *arguments = function.args
    make = {"product": product_tile, "outer": outer_tile}[kind]
    end = function.append_basic_block("end")
    which = Code(b, form).address(I64(0), (rows, 10), (blocks, 1))
    switch = b.switch(which, end)
    for r, u in shapes(1, registers):
        case = function.append_basic_block()
        switch.add_case(I64(10 * r + u), case)
        b.position_at_end(case)
        b.call(make(module, form, r, u), arguments)
        b.branch(end)
    b.position_at_end(end)
    b.ret_void()
    return function
