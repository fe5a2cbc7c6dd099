#!/usr/bin/env bash
# The runs of README.md's table: none, flip, standard and strong, alone and with a teacher. Half an hour of one CPU core.
#   examples/lmo/augment/run.sh DATA TEACHER OUT
# DATA     COCO directory of LM-O: train/ val/ annotations/instances_{train,val}.json
# TEACHER  model directory: the teacher that examples/unlabeled/lmo.sh trains (OUT/teacher/model there)
# OUT      run directories go here; runs that are there already are not made again
set -euo pipefail
data=$1 teacher=$2 out=$3
student="gfocal --backbone test_resnet --pretrained_backbone false --fpn_channels 64 --head_width 64 --head_depth 2
  --anchor_scale 4"
fit="--image_size 160 214 --optimizer adamw --lr 0.002 --scale_lr false --lr_schedule cosine --clip_grad_norm 10
  --channels_last --ema off --workers 0 --log_every 10 --batch_size 4 --steps 200"
export OMP_NUM_THREADS=1

run() {  # run NAME SEED COMMAND...
  local run=$out/$1-$2 seed=$2
  shift 2
  [ -f "$run/result.json" ] && return
  python -m "$@" $student $fit --data "$data" --seed "$seed" --output_dir "$run" > "$run.log" 2>&1
}

mkdir -p "$out"
for seed in ${SEEDS:-0 1 2}; do
  for augment in none flip standard strong; do
    run "alone.$augment" "$seed" ld_hub.train --augment "$augment"
    run "auto.$augment" "$seed" ld_hub.distill --augment "$augment" --teacher "$teacher" --recipe auto
  done
done
