#!/usr/bin/env bash
# Every run of the first table in README.md, on data that the library makes itself. About half an hour on one CPU core.
#   examples/unlabeled/demo.sh OUT
# Runs that are in OUT already are not made again.
set -euo pipefail
out=$1
here=$(dirname "$0")
labels=60
fit="--image_size 128 128 --batch_size 16 --optimizer adamw --lr 0.003 --scale_lr false --lr_schedule cosine
  --clip_grad_norm 10 --channels_last --workers 1 --log_every 10 --pretrained_backbone false"
student=gfocal_tiny
export OMP_NUM_THREADS=1

[ -d "$out/data" ] || ld-hub data demo "$out/data"
[ -d "$out/few" ] || python "$here/split.py" "$out/data" $labels "$out/few"
if [ ! -f "$out/teacher/result.json" ]; then  # somebody else's: it has seen all labels
  python -m ld_hub.train gfocal_r10t $fit --data "$out/data" --steps 800 --output_dir "$out/teacher"
fi

. "$here/runs.sh"
teach="--teacher $out/teacher/model"
pool="--unlabeled $out/few/unlabeled.txt --unlabeled_batch 16"
for seed in ${SEEDS:-0 1 2}; do
  run alone $seed 200 ld_hub.train
  run targets $seed 200 ld_hub.distill $teach --recipe vlr $pool --unlabeled_terms false --labeled_terms false
  run targets.crosskd $seed 200 ld_hub.distill $teach --recipe crosskd $pool
  run targets.vlr $seed 200 ld_hub.distill $teach --recipe vlr $pool
  run alone.twice $seed 400 ld_hub.train
  run crosskd $seed 200 ld_hub.distill $teach --recipe crosskd
  run terms.crosskd $seed 200 ld_hub.distill $teach --recipe crosskd $pool --unlabeled_targets false
  run targets.bckd $seed 200 ld_hub.distill $teach --recipe bckd $pool
done
