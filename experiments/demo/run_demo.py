"""The demo: search for half of the shipped teacher, on the running interpreter's standard library.

python experiments/demo/run_demo.py [any option of experiments/run_search.py]
"""

import os
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments.run_search import main

if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(
        main(
            [
                "--config=experiments/demo/demo.yaml",
                "--teacher=experiments/demo/teacher",
                f"--corpus={sysconfig.get_path('stdlib')}",
                *sys.argv[1:],
            ]
        )
    )
