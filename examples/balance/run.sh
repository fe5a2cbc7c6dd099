#!/usr/bin/env bash
# The runs on the demo data for the table in README.md. About 10 minutes on one CPU core.
#   examples/balance/run.sh OUT
# OUT  data, teacher and run directories go here; runs that are there already are not made again
# The runs on LM-O are examples/lmo/run.sh's.
set -euo pipefail
out=$1
fit="--data $out/demo/data --image_size 128 128 --batch_size 16 --optimizer adamw --lr 0.003 --scale_lr false
  --lr_schedule cosine --clip_grad_norm 10 --precision bf16 --channels_last --ema off --workers 1 --log_every 10 --steps 200"
student="gfocal_tiny --pretrained_backbone false"
export OMP_NUM_THREADS=1

[ -d "$out/demo/teacher" ] || ld-hub demo "$out/demo" --seed 1

run() {  # run NAME SEED COMMAND...: one row's run of one seed; its seconds of CPU time go beside its result
  local run=$out/$1-$2 seed=$2
  shift 2
  [ -f "$run/result.json" ] && return
  local TIMEFORMAT=%U
  { time python -m "$@" $student $fit --seed "$seed" --output_dir "$run" > "$run.log" 2>&1; } 2> "$run.cpu"
  mv "$run.cpu" "$run/cpu_seconds"
}

for seed in 0 1 2; do
  run alone $seed ld_hub.train
  for recipe in vlr bckd; do
    run $recipe $seed ld_hub.distill --teacher "$out/demo/teacher" --recipe $recipe
    run $recipe.balanced $seed ld_hub.distill --teacher "$out/demo/teacher" --recipe $recipe --balance gradient
  done
done
