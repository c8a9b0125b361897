"""After a job's tasks have ended: done, try again, or give up. Run by the job's batch script, which lives on when a
worker is killed outright; exit code 75 asks that script to requeue the job.

    python -m slurm.after SUBMISSION EXIT_CODE STATE
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

from slurm import ledger
from training import run_directory

DONE, GIVE_UP, AGAIN = 0, 1, 75
# SLURM has already decided what follows, or a person has.
DECIDED = {
    "CANCELLED": "cancelled",
    "PENDING": "requeued by SLURM",
    "REQUEUED": "requeued by SLURM",
    "REQUEUE_HOLD": "requeued by SLURM and held",
    "COMPLETING": "requeued or ended by SLURM",
    "PREEMPTED": "preempted by SLURM",
    "NODE_FAIL": "its node failed",
}


def conclude(path: Path, job: str, restart: int, code: int, state: str) -> int:
    """Judge the attempt that has just ended, write it down, and say what to do: `DONE`, `GIVE_UP` or `AGAIN`.

    Args:
        path: the entry of the job book.
        job: id of this job.
        restart: SLURM_RESTART_COUNT, which tells this attempt from an earlier one.
        code: exit code of the tasks.
        state: of the job as SLURM names it; empty where it gave no answer.
    """
    entry = ledger.read_entry(path)
    if entry is None or entry.job not in ("", job):
        return GIVE_UP  # the run has been given to another job
    attempt = entry.attempts[-1] if entry.attempts and entry.attempts[-1].restart == restart else None
    if attempt is None:  # the job died before it could say that it started
        attempt = ledger.Attempt(len(entry.attempts) + 1, job, restart, socket.gethostname(), 0, time.time())
        entry.attempts.append(attempt)
    decided = DECIDED.get(state)
    if not attempt.outcome:
        attempt.outcome, attempt.reason = _outcome(code, state)
        attempt.ended = time.time()
    verdict = _verdict(entry, attempt, decided, state)
    ledger.write_entry(path, entry)
    return verdict


def _outcome(code: int, state: str) -> tuple[str, str]:
    """What to make of tasks that left no word."""
    if state in DECIDED:
        return ledger.LEFT, DECIDED[state]
    if state == "TIMEOUT":  # a failure of its own: else it would be requeued for ever
        return ledger.KILLED, "the time limit came before a checkpoint was saved: raise signal_delay_seconds"
    number = code - 128
    name = signal.Signals(number).name if number in set(signal.Signals) else ""
    if name in ("SIGUSR2", "SIGTERM"):
        return ledger.STOPPED, f"{name} before training began"
    if name == "SIGKILL":
        return ledger.KILLED, "killed by SIGKILL, the usual cause is too little memory: raise memory_gb of the cluster"
    return ledger.KILLED, f"died by {name}" if name else f"died with exit code {code}"


def _verdict(entry: ledger.Entry, attempt: ledger.Attempt, decided: str | None, state: str) -> int:
    if attempt.outcome == ledger.FINISHED:
        return DONE
    if decided:
        if state == "CANCELLED":
            entry.ended = entry.ended or ledger.CANCELLED
        return GIVE_UP
    if entry.failures >= ledger.MOST_FAILURES:
        entry.ended = f"gave up after {entry.failures} failures, the last one: {attempt.reason}"
        return GIVE_UP
    return AGAIN


def main(arguments: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT):  # SLURM signals this process too
        signal.signal(number, signal.SIG_IGN)
    submission, code, state = Path(arguments[0]), int(arguments[1]), arguments[2] if len(arguments) > 2 else ""
    try:
        names = run_directory.read_json(submission / "entries.json")
        path = Path(names[int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))])
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        verdict = conclude(path, job, int(os.environ.get("SLURM_RESTART_COUNT", 0)), code, state)
    except (run_directory.RunError, OSError, LookupError, ValueError) as error:
        # Without a book that counts failures a requeue could go on for ever.
        print(f"not requeued, as the job book cannot be kept: {error}", file=sys.stderr, flush=True)
        return GIVE_UP
    words = {DONE: "finished", GIVE_UP: "not requeued", AGAIN: "to be requeued"}
    print(f"tasks ended with code {code}, job is {state or 'unknown to SLURM'}: {words[verdict]}", flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
