"""Lines that the test suite runs, by package, from coverage's JSON.

python -m tests.covered REPORT.json
"""

import json
import sys
from collections import defaultdict
from pathlib import Path, PurePath

AT_LEAST = 90.0
"""Per cent of each package's lines."""
SHOWN_ONLY = {"rung/orchestration"}
"""Much of it runs in processes that Ray ends without a word, whose lines are lost."""


def package(path):
    """A package of rung; its own modules count as rung."""
    folders = PurePath(path).parent.parts
    return "/".join(folders[1:3]) if folders[0] == "platform" else folders[0]


def main():
    """Print the table, and the modules below the mark."""
    (report,) = sys.argv[1:]
    modules = {
        path: (found["summary"]["num_statements"], found["summary"]["covered_lines"])
        for path, found in json.loads(Path(report).read_text())["files"].items()
    }
    packages = defaultdict(lambda: (0, 0))
    for path, (lines, covered) in modules.items():
        before = packages[package(path)]
        packages[package(path)] = (before[0] + lines, before[1] + covered)
    print(f"{'package':<24}{'lines':>8}{'run':>8}{'covered':>10}")
    for name, (lines, covered) in sorted(packages.items()):
        print(f"{name:<24}{lines:>8}{covered:>8}{100 * covered / lines:>9.1f}%")
    for path, (lines, covered) in sorted(modules.items()):
        if 100 * covered < AT_LEAST * lines:
            print(f"below {AT_LEAST:.0f} %: {path}, {covered} of {lines} lines")
    low = [
        name
        for name, (lines, covered) in sorted(packages.items())
        if name not in SHOWN_ONLY and 100 * covered < AT_LEAST * lines
    ]
    if low:
        print(f"below {AT_LEAST:.0f} % as a whole: {', '.join(low)}", file=sys.stderr)
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())
