# Sourced by demo.sh and lmo.sh, which set $student, $fit and $out.

run() {  # run NAME SEED STEPS COMMAND...: one row's run of one seed; its seconds of CPU time go beside its result
  local run=$out/$1-$2 seed=$2 steps=$3
  shift 3
  [ -f "$run/result.json" ] && return
  local TIMEFORMAT=%U
  { time python -m "$@" $student $fit --data "$out/few" --steps "$steps" --seed "$seed" --output_dir "$run" \
    > "$run.log" 2>&1; } 2> "$run.cpu"
  mv "$run.cpu" "$run/cpu_seconds"
}
