"""The plan of a way back, as `plan` is that of a run.

After the entries named here come lists of int64: the ROWS rows that a step goes back on, then
for each of WINDOW slots the addresses of the input, of the state and of the 1 of the bias that its
gradients belong to, then for each row and step the address of the state before it.
"""

# fmt: off
(
    # what Python sets
    FIRST, LAST, SHARES,             # of SHARES shares of the rows, FIRST ... LAST - 1 are computed
    BACKWARDS, MASKED, ZERO_OUTPUT,  # 0 or 1
    TRUNCATE,                        # steps of a piece; 0: the sequence is whole
    INPUTS,                          # 1: dxs are written, 0: they are not
    UNITS,
    ROWS, WINDOW,                    # rows of a share at most; slots
    # what the loop sets
    KEPT, KEPT_ROW,                  # what the step kept
    DY, DY_ROW,                      # the gradient of its output
    DX, DU, SLOT,                    # the next slots for gradients of its sums, and their distance
    DIRECT, SUMS, DOUT, DC, OWN_ROW, # what has come back to a row: see `backs.step_back`
) = range(23)
# fmt: on

HEAD = 23
