"""How long does `import refrnn` take, beside `import numpy`, which is most of it?

Whole processes, in turn, on a warm disk cache; medians over 20 rounds. Verified first: the import
must not load what it promises not to.
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 20
PROGRAMS = {"python": "pass", "import numpy": "import numpy", "import refrnn": "import refrnn"}
CHECK = """
import sys, refrnn
heavy = {"tensorflow", "keras", "torch", "h5py", "numba"} & set(sys.modules)
assert not heavy, f"import refrnn loads {heavy}"
"""


def seconds(program: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - started


def main() -> None:
    subprocess.run([sys.executable, "-c", CHECK], check=True)
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for program in PROGRAMS.values():
        seconds(program)
    for _ in range(ROUNDS):
        for name, program in PROGRAMS.items():
            times[name].append(seconds(program))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:15} {1000 * median:6.0f} ms")
    bare = medians["python"]
    ratio = (medians["import refrnn"] - bare) / (medians["import numpy"] - bare)
    print(f"import refrnn / import numpy, without Python's own start: {ratio:.2f}")


if __name__ == "__main__":
    main()
