"""cuDNN as the oracle: the ways in which a program reaches it, and the proof that it did.

Every framework has a loop of its own for what cuDNN does not take, and falls back on it without a
word. So nothing here is believed for being asked: cuDNN's own log is read after every call.
"""
