#!/usr/bin/env bash
# Every run of the table in README.md. About 40 minutes on two CPU cores.
#   examples/lmo/run.sh DATA BACKBONE OUT
# DATA      COCO directory of LM-O: train/ val/ annotations/instances_{train,val}.json
# BACKBONE  safetensors file of timm's tf_efficientnet_lite0 (ImageNet weights)
# OUT       run directories go here
set -euo pipefail
data=$1 backbone=$2 out=$3
steps=200
head="--fpn_channels 64 --head_width 64 --head_depth 2 --anchor_scale 4"
fit="--data $data --image_size 256 342 --batch_size 8 --optimizer adamw --lr 0.002 --scale_lr false
  --lr_schedule cosine --clip_grad_norm 10 --precision bf16 --channels_last --workers 1 --log_every 10"

if [ ! -f "$out/teacher/result.json" ]; then
  python -m ld_hub.train gfocal --backbone tf_efficientnet_lite0 --backbone_checkpoint "$backbone" $head $fit \
    --steps 300 --output_dir "$out/teacher"
fi

student() {  # student BACKBONE: all runs of one student, on one core
  local name=$1
  local build="gfocal --backbone $name --pretrained_backbone false $head"
  for seed in 0 1 2; do
    python -m ld_hub.train $build $fit --steps $steps --seed $seed --output_dir "$out/$name/alone-$seed"
    for recipe in ld vlr; do
      python -m ld_hub.distill $build $fit --steps $steps --seed $seed --teacher "$out/teacher/model" \
        --recipe $recipe --output_dir "$out/$name/$recipe-$seed"
    done
    # plain training for as long as `vlr` took
    longer=$(python -c "
import json, sys
seconds = [json.load(open(f'$out/$name/{run}-$seed/result.json'))['seconds'] for run in ('vlr', 'alone')]
print(round($steps * seconds[0] / seconds[1]))")
    python -m ld_hub.train $build $fit --steps "$longer" --seed $seed --output_dir "$out/$name/alone_longer-$seed"
  done
}

export OMP_NUM_THREADS=1
student mobilenetv4_conv_small_050 > "$out/mobilenetv4_conv_small_050.log" 2>&1 &
student test_resnet > "$out/test_resnet.log" 2>&1 &
wait
python "$(dirname "$0")/table.py" "$out"
