"""What does one step cost, its state carried on, beside other libraries and the bare products?

python benchmarks/bench_step.py
python benchmarks/bench_step.py --rounds 2 --quick  # does it work?
"""

from race import main
from shapes import STEPS, grid

if __name__ == "__main__":
    main("What does one step cost?", grid(STEPS, ("float32", "float64")))
