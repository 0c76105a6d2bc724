"""Check this machine, and what a config asks of it, and say what to do. Nothing is started, made or changed.

python jobs/doctor.py
python jobs/doctor.py --config jobs/configs/finetune_r2scan.yaml --run.storage /shared/runs

FILE is the config of any job, and its keys are given as they are to that job. The exit code is 0 where there is no
problem, 1 where there is one, 2 where the command line is wrong.
"""

import sys
from collections.abc import Sequence

from rung.config.command import BAD_INPUT, FAILURE, parse_arguments
from rung.config.load import ConfigError

_USAGE = "usage: python jobs/doctor.py [--config FILE] [--section.key VALUE ...] [--dry-run (names the checks)]"


def main(argv: Sequence[str]) -> int:
    """Print a line for each check, as it ends."""
    try:
        arguments = parse_arguments(argv)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    if "help" in arguments.switches:
        print(f"{_USAGE}\n\n{__doc__}")
        return 0
    from rung.orchestration.checkup.checks import CHECKS, examine, line, total
    from rung.orchestration.checkup.subject import subject_of

    if "dry-run" in arguments.switches:
        print("\n".join(CHECKS))
        return 0
    findings = []
    for name, finding in examine(subject_of(arguments.config, arguments.overrides)):
        print(line(name, finding), flush=True)
        findings.append(finding)
    print(total(findings))
    return FAILURE if any(each.status == "problem" for each in findings) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
