"""What does a whole sequence cost, beside other libraries and the bare products?

python benchmarks/bench_sequence.py
python benchmarks/bench_sequence.py --rounds 2 --quick  # does it work?
"""

from race import main
from shapes import SEQUENCES, grid

if __name__ == "__main__":
    main("What does a whole sequence cost?", grid(SEQUENCES, ("float32", "float64")))
