# The end of every batch script: is the run finished, is the job started again, or is it given up? This shell lives on
# when its tasks are killed; submitit's own requeue, inside the task, does not. Set before: code,
# root (the project), folder, index.
run=$root/$(sed -n "$((index + 1))p" "$folder/runs.txt")
if [ "$code" -eq 0 ] && [ -e "$run/result.json" ]; then exit 0; fi

state=$(timeout 60 scontrol show job --oneliner "$SLURM_JOB_ID" | grep --only-matching --max-count=1 'JobState=[A-Z_]*')
case "${state#JobState=}" in
  CANCELLED | PENDING | REQUEUED | REQUEUE_HOLD | COMPLETING | PREEMPTED | NODE_FAIL)
    exit "$code" ;; # SLURM has decided what follows, or a person
esac

# 0: it has saved its checkpoint after a signal; 140 and 143: SIGUSR2 and SIGTERM before Python was there to note them.
if [ "$code" -ne 0 ] && [ "$code" -ne 140 ] && [ "$code" -ne 143 ]; then
  reason="died with exit code $code"
  if [ "$code" -gt 128 ]; then reason="killed by SIG$(kill -l "$code")"; fi
  if [ "$code" -eq 137 ]; then reason="$reason, the usual cause is too little memory: raise memory_gb of the cluster"; fi
  if [ "$state" = JobState=TIMEOUT ]; then reason="no checkpoint before the time limit: raise signal_delay_seconds"; fi
  failed="$folder/ended/$index.${SLURM_RESTART_COUNT:-0}.failed"
  if [ ! -e "$failed" ]; then # else a task has said why
    echo "$reason" > "$failed" || exit "$code" # without a count of failures it could be requeued for ever
    echo "failed: $reason" >> "$run/log.txt"
  fi
  set -- "$folder/ended/$index".*.failed
  if [ $# -ge 3 ]; then exit "$code"; fi
fi

for pause in 0 5 15 30 60 60; do
  sleep "$pause"
  timeout 60 scontrol requeue "$SLURM_JOB_ID" && exit 0
done
echo "could not be requeued: python -m slurm submit --resume" >&2
exit "$code"
