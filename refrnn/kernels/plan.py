"""The plan of a run: one array of int64 that tells the compiled loop where everything is.

It begins with the entries named here. Then come two lists of row numbers, those that a step
advances and 0, 1, 2, ... for the steps whose sums are made ahead, and the loop's working memory.

An array with rows has two entries, the address of its row 0 and the distance of rows in bytes.
"""

# fmt: off
(
    # what Python sets
    FIRST, LAST,                     # rows FIRST ... LAST - 1 are computed
    BACKWARDS, MASKED, ZERO_OUTPUT,  # 0 or 1
    AHEAD,                           # steps whose sums of the input are made at once; 0: none
    KEPT, KEPT_ROW, KEPT_STEP,       # what the first step keeps for the way back, and the next one
    FEATURES, UNITS,
    W, U, B, W2, U2, B2,             # panels of weights and biases, those of a second stage last
    # what the loop sets
    X, X_ROW,                        # the input of the step
    H, H_ROW,                        # the state before it
    OUT, OUT_ROW,                    # the state after it
    C, C_ROW,                        # the cell state of an LSTM, before and after
    SUMS, SUMS_ROW,                  # the step's sums of the input if they are made ahead, else 0
    Z, Z_ROW, RH, RH_ROW,            # between the two stages of a GRU that resets before
) = range(31)
# fmt: on

HEAD = 31

HIDDEN, FORGET = 1, 2  # what a step of a row is marked with: masked; forget before it
