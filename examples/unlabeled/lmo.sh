#!/usr/bin/env bash
# Every run of the second table in README.md. About an hour on one CPU core.
#   examples/unlabeled/lmo.sh DATA BACKBONE OUT
# DATA      COCO directory of LM-O: train/ val/ annotations/instances_{train,val}.json
# BACKBONE  safetensors file of timm's tf_efficientnet_lite0 (ImageNet weights), for the teacher
# OUT       run directories go here; runs that are there already are not made again
set -euo pipefail
data=$1 backbone=$2 out=$3
here=$(dirname "$0")
labels=30
head="--fpn_channels 64 --head_width 64 --head_depth 2 --anchor_scale 4"
fit="--image_size 256 342 --batch_size 8 --optimizer adamw --lr 0.002 --scale_lr false
  --lr_schedule cosine --clip_grad_norm 10 --precision bf16 --channels_last --workers 1 --log_every 10"
student="gfocal --backbone test_resnet --pretrained_backbone false $head"
export OMP_NUM_THREADS=1

[ -d "$out/few" ] || python "$here/split.py" "$data" $labels "$out/few"
if [ ! -f "$out/teacher/result.json" ]; then  # somebody else's: it has seen all labels
  python -m ld_hub.train gfocal --backbone tf_efficientnet_lite0 --backbone_checkpoint "$backbone" $head $fit \
    --data "$data" --steps 300 --output_dir "$out/teacher"
fi

. "$here/runs.sh"
teach="--teacher $out/teacher/model"
pool="--unlabeled $out/few/unlabeled.txt --unlabeled_batch 8"
for seed in ${SEEDS:-0 1 2}; do
  run alone $seed 200 ld_hub.train
  run targets $seed 200 ld_hub.distill $teach --recipe vlr $pool --unlabeled_terms false --labeled_terms false
  run targets.vlr $seed 200 ld_hub.distill $teach --recipe vlr $pool
  run targets.crosskd $seed 200 ld_hub.distill $teach --recipe crosskd $pool
  run alone.twice $seed 400 ld_hub.train
  run vlr $seed 200 ld_hub.distill $teach --recipe vlr
  run terms.vlr $seed 200 ld_hub.distill $teach --recipe vlr $pool --unlabeled_targets false
  run targets.bckd $seed 200 ld_hub.distill $teach --recipe bckd $pool
done

