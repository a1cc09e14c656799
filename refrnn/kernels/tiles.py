"""Tiles: a few rows times a few blocks of units, their sums made in registers.

A block is one vector of units. A tile is R rows times U blocks times the gates: that many sums are
in flight together, so that no multiply-add waits for the one before it and each number loaded is
used several times.

Sums have one order everywhere. Each is made by one accumulator, from zero, over k = 0, 1, 2, ...;
those of the input and those of the state apart. The formula of the cell then adds the two and the
bias. More rows, more blocks or sums made ahead change which sums are in flight together, never how
one of them is rounded.

Weights lie in panels [block][k][gate][lane], so that a tile walks along memory; the sums of a row
lie in [block][gate][lane]. What is generated are LLVM functions of addresses and counts, all i64;
_row and _block are distances in bytes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from refrnn.kernels import plan
from refrnn.kernels.formulas import STAGES, Stage, Vectors
from refrnn.kernels.vectors import I64, Code, Format

TALLEST = 6  # rows of a tile at most
INPUT_SUMS = 9  # the stage that makes sums of the input only


def sums_at_once(registers: int) -> int:
    """How many sums a tile may have: a quarter of the registers is left for factors."""
    return 3 * registers // 4


def shapes(gates: int, registers: int) -> list[tuple[int, int]]:
    """The (rows, blocks) that there are tiles for; several blocks are for few rows."""
    most = sums_at_once(registers)
    rows = range(1, TALLEST + 1)
    return [(r, u) for r in rows for u in (1, 2, 4) if r * u * gates <= most]


def sums_tile(module: Any, form: Format, gates: int, rows: int, blocks: int) -> Any:
    """The LLVM function of one tile of sums, added to `module`.

        void sums(numbers, factor, factor_row, count, weights, weights_block, target, target_row)

    target[r][u][gate] = sum over k < count of factor[numbers[r]][k] * weights[u][k][gate]
    """
    function, b = new_function(module, f"sums{gates}_{rows}x{blocks}", 8)
    numbers, factor, factor_row, count, weights, weights_block, target, target_row = function.args
    code = Code(b, form)
    rows_of_factor = [
        b.add(factor, b.mul(factor_row, code.word(code.address(numbers, (I64(8), r)))))
        for r in range(rows)
    ]
    panels = [code.address(weights, (weights_block, u)) for u in range(blocks)]

    def add_products(k: Any, sums: Vectors) -> Vectors:
        sums = list(sums)
        factors = [code.spread(code.address(row, (k, form.size))) for row in rows_of_factor]
        for u in range(blocks):
            for gate in range(gates):
                at = code.address(panels[u], (k, gates * form.bytes), (I64(gate), form.bytes))
                weight = code.load(at)
                for r in range(rows):
                    s = (r * blocks + u) * gates + gate
                    sums[s] = weight.times_plus(factors[r], sums[s])
        return sums

    zeros = [code.constant(0.0)] * (rows * blocks * gates)
    for s, total in enumerate(code.loop(count, zeros, add_products)):
        r, place = divmod(s, blocks * gates)
        code.store(total, code.address(target, (target_row, r), (I64(place), form.bytes)))
    b.ret_void()
    return function


def cell_tile(module: Any, form: Format, name: str, stage: Stage) -> Any:
    """The LLVM function of a stage's formula, added to `module`.

        void cell(plan, numbers, rows, block, blocks, x_sums, x_row, x_by_number, u_sums, u_row)

    on the rows numbers[0] ... of the plan's arrays, blocks block ... block + blocks - 1. Row r has
    its sums of the state at u_sums + r * u_row, and those of the input at x_sums + r * x_row, or,
    if x_by_number is 1, at x_sums + numbers[r] * x_row.
    """
    function, b = new_function(module, name, 10)
    base, numbers, rows, block, blocks, x_sums, x_row, x_by_number, u_sums, u_row = function.args
    code = Code(b, form)

    def entry(slot: int) -> Any:
        return code.word(code.address(base, (I64(8), slot)))

    def vectors(place: Any, count: int) -> Vectors:
        return [code.load(code.address(place, (I64(k), form.bytes))) for k in range(count)]

    arrays = {slot: (entry(slot), entry(slot + 1)) for slot in {*stage.reads, *stage.writes}}
    units, bias = entry(plan.UNITS), entry(stage.panels[2])
    kept, kept_row = (entry(plan.KEPT), entry(plan.KEPT_ROW)) if stage.kept else (I64(0), I64(0))
    by_number = b.trunc(x_by_number, ir.IntType(1))

    def one_vector(r: Any, u: Any) -> None:
        number = code.word(code.address(numbers, (r, 8)))
        x_place = b.add(x_sums, b.mul(b.select(by_number, number, r), x_row))
        u_place = b.add(u_sums, b.mul(r, u_row))
        a_block = stage.gates * form.bytes
        x, h = (vectors(code.address(place, (u, a_block)), stage.gates)
                for place in (x_place, u_place))  # fmt: skip
        own = b.add(block, u)
        biases = vectors(code.address(bias, (own, stage.biases * form.bytes)), stage.biases)
        places = {
            slot: code.address(b.add(first, b.mul(number, row)), (own, form.bytes))
            for slot, (first, row) in arrays.items()
        }
        left = b.sub(units, b.mul(own, I64(form.lanes)))  # a row's last block may be cut off
        reads = [code.load_some(places[slot], left) for slot in stage.reads]
        made = stage.formula(x, h, biases, *reads)
        for slot, vector in zip(stage.writes, made[: len(stage.writes)], strict=True):
            code.store_some(vector, places[slot], left)
        place = b.add(kept, b.mul(number, kept_row))
        place = code.address(place, (own, stage.kept * form.bytes))
        for k, vector in enumerate(made[len(stage.writes) :]):
            code.store(vector, code.address(place, (I64(k), form.bytes)))

    code.each(rows, lambda r: code.each(blocks, lambda u: one_vector(r, u)))
    b.ret_void()
    return function


def tiles(module: Any, form: Format, cell: str, registers: int) -> Any:
    """The LLVM function that advances a tile of a cell by one stage, added to `module` once.

        void tiles(plan, numbers, rows, block, blocks, stage)

    There must be a tile of so many rows and blocks (`shapes`). INPUT_SUMS is the stage that makes
    sums of the input ahead, row n at plan.SUMS + n * plan.SUMS_ROW, for numbers that follow one
    another; while plan.SUMS is not 0 they are read there, else made here.
    """
    if f"refrnn_{cell}" in module.globals:
        return module.globals[f"refrnn_{cell}"]
    stages = STAGES[cell]
    made = {
        gates: {shape: sums_tile(module, form, gates, *shape) for shape in shapes(gates, registers)}
        for gates in {stage.gates for stage in stages}
    }
    function, b = new_function(module, cell, 6)
    base, numbers, rows, block, blocks, number = function.args
    code = Code(b, form)

    def entry(slot: int) -> Any:
        return code.word(code.address(base, (I64(8), slot)))

    def room() -> Any:
        found = b.alloca(form.vector, sums_at_once(registers))
        found.align = 64
        return b.ptrtoint(found, I64)

    def sums(
        stage: Stage, array: int, panel: int, count: Any, target: Any, target_row: Any
    ) -> None:
        weights_block = b.mul(count, I64(stage.gates * form.bytes))
        weights = b.add(entry(panel), b.mul(block, weights_block))
        factor = entry(array), entry(array + 1), count
        arguments = [numbers, *factor, weights, weights_block, target, target_row]
        after = function.append_basic_block()
        switch = b.switch(code.address(I64(0), (rows, 10), (blocks, 1)), after)
        for (r, u), tile in made[stage.gates].items():
            case = function.append_basic_block()
            switch.add_case(I64(10 * r + u), case)
            b.position_at_end(case)
            b.call(tile, arguments)
            b.branch(after)
        b.position_at_end(after)

    def advance(k: int, stage: Stage) -> None:
        kernel, recurrent, _ = stage.panels
        a_block = stage.gates * form.bytes
        row = b.mul(blocks, I64(a_block))
        ahead = b.icmp_signed("!=", entry(plan.SUMS), I64(0))
        with b.if_then(b.not_(ahead)):
            sums(stage, plan.X, kernel, entry(plan.FEATURES), x_room, row)
        sums(stage, stage.factor, recurrent, entry(plan.UNITS), u_room, row)
        x_sums = b.select(ahead, code.address(entry(plan.SUMS), (block, a_block)), x_room)
        x_row = b.select(ahead, entry(plan.SUMS_ROW), row)
        b.call(
            cell_tile(module, form, f"{cell}_{k}", stage),
            [base, numbers, rows, block, blocks, x_sums, x_row, b.zext(ahead, I64), u_room, row],
        )

    def make_ahead(stage: Stage) -> None:
        row = entry(plan.SUMS_ROW)
        first = b.add(entry(plan.SUMS), b.mul(code.word(numbers), row))
        target = code.address(first, (block, stage.gates * form.bytes))
        sums(stage, plan.X, plan.W, entry(plan.FEATURES), target, row)

    def case(k: int) -> None:
        """What is emitted next is for stage k."""
        block = function.append_basic_block()
        switch.add_case(I64(k), block)
        b.position_at_end(block)

    x_room, u_room = room(), room()
    end = function.append_basic_block("end")
    switch = b.switch(number, end)
    for k, stage in enumerate(stages):
        case(k)
        advance(k, stage)
        b.branch(end)
    if len(stages) == 1:
        case(INPUT_SUMS)
        make_ahead(stages[0])
        b.branch(end)
    b.position_at_end(end)
    b.ret_void()
    return function


def new_function(module: Any, name: str, arguments: int) -> tuple[Any, Any]:
    """A new function void(i64, ...) of the module, and what emits into it."""
    kind = ir.FunctionType(ir.VoidType(), [I64] * arguments)
    function = ir.Function(module, kind, f"refrnn_{name}")
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function, ir.IRBuilder(function.append_basic_block())
