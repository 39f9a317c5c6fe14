"""Runs fuzz targets, two at a time, and says what they found.

Usage: run.py BUILD SECONDS [TARGET...]: BUILD is the build folder, SECONDS how long each runs.
What a target learns is kept in BUILD/corpus for the next run; inputs that break an invariant are
left in BUILD/findings. Run a target with such a file as its argument to see it happen again.
"""

import importlib.util
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SEEDS = Path(__file__).parent / "corpus"
# Each target, and what it starts from besides its own seeds: recorded sessions, by direction.
TARGETS = {
    "session": ["mta"],
    "wire": ["mta", "filter"],
    "mta_side": ["filter"],
    "setreply": [],
    "spec": [],
    "mime": [],
}
OPTIONS = ["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=1"]
SUMMARY = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


def run(build: Path, seconds: int, target: str) -> bool:
    """Runs one target. Returns whether it found nothing."""
    program: list[Path | str] = [build / "tests" / "fuzz" / f"fuzz_{target}"]
    if (script := Path(__file__).with_name(f"fuzz_{target}.py")).exists():
        program = [sys.executable, script]
        if not importlib.util.find_spec("atheris"):
            print(
                f"{target:10} LEFT OUT: atheris does not install for this interpreter", flush=True
            )
            return True
    learnt = build / "corpus" / target
    findings = build / "findings"
    for folder in (learnt, findings):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = [SEEDS / name for name in (target, *TARGETS[target])]
    command = [
        *program,
        learnt,
        *OPTIONS,
        f"-max_total_time={seconds}",
        f"-artifact_prefix={findings}/{target}-",
        *(seed for seed in seeds if seed.is_dir()),
    ]
    log = build / f"{target}.log"
    with log.open("wb") as output:
        status = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    text = log.read_text(errors="replace")
    runs = re.search(r"number_of_executed_units: (\d+)", text)
    reached = SUMMARY.findall(text)
    if status == 0 and runs and reached:
        edges, features, inputs = reached[-1]
        print(
            f"{target:10} {runs[1]:>9} runs, {edges} edges, {features} features,",
            f"{inputs} inputs: nothing found",
            flush=True,
        )
        return True
    print(f"{target}: FOUND (status {status}); see {findings}/{target}-*", flush=True)
    print("\n".join(text.splitlines()[-60:]), flush=True)
    return False


def main(arguments: list[str]) -> int:
    build, seconds = Path(arguments[0]), int(arguments[1])
    targets = arguments[2:] or list(TARGETS)
    with ThreadPoolExecutor(max_workers=2) as pool:
        passed = list(pool.map(lambda target: run(build, seconds, target), targets))
    return not all(passed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
