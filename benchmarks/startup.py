"""Time of `wirework --help` and of `import wirework`, compared with bare Python.

python benchmarks/startup.py [--rounds 15]
"""

import argparse
import subprocess
import sys
from pathlib import Path

from step import interleaved_medians, machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import wirework": [sys.executable, "-c", "import wirework"],
        "wirework --help": [str(Path(sys.executable).with_name("wirework")), "--help"],
    }
    steps = {
        name: lambda command=command: subprocess.run(command, check=True, capture_output=True)
        for name, command in commands.items()
    }
    print(machine())
    for name, ms in interleaved_medians(steps, options.rounds).items():
        print(f"{name:16} {ms:6.0f} ms")


if __name__ == "__main__":
    main()
