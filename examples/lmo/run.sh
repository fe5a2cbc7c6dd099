#!/usr/bin/env bash
# Every run of the table in README.md. About 50 minutes on one CPU core.
#   examples/lmo/run.sh DATA BACKBONE OUT
# DATA      COCO directory of LM-O: train/ val/ annotations/instances_{train,val}.json
# BACKBONE  safetensors file of timm's tf_efficientnet_lite0 (ImageNet weights)
# OUT       run directories go here; runs that are there already are not made again
set -euo pipefail
data=$1 backbone=$2 out=$3
steps=200
head="--fpn_channels 64 --head_width 64 --head_depth 2 --anchor_scale 4"
fit="--data $data --image_size 256 342 --batch_size 8 --optimizer adamw --lr 0.002 --scale_lr false
  --lr_schedule cosine --clip_grad_norm 10 --precision bf16 --channels_last --ema off --workers 1 --log_every 10"
student="gfocal --backbone test_resnet --pretrained_backbone false $head"
export OMP_NUM_THREADS=1

if [ ! -f "$out/teacher/result.json" ]; then
  python -m ld_hub.train gfocal --backbone tf_efficientnet_lite0 --backbone_checkpoint "$backbone" $head $fit \
    --steps 300 --output_dir "$out/teacher"
fi

run() {  # run NAME SEED STEPS COMMAND...: one row's run of one seed; its seconds of CPU time go beside its result
  local run=$out/$1-$2 seed=$2 steps=$3
  shift 3
  [ -f "$run/result.json" ] && return
  local TIMEFORMAT=%U
  { time python -m "$@" $student $fit --steps "$steps" --seed "$seed" --output_dir "$run" > "$run.log" 2>&1; } 2> "$run.cpu"
  mv "$run.cpu" "$run/cpu_seconds"
}

for seed in 0 1 2; do
  run alone $seed $steps ld_hub.train
  for recipe in kd ld vlr bckd fine_grained gi pkd crosskd; do
    run $recipe $seed $steps ld_hub.distill --teacher "$out/teacher/model" --recipe $recipe
  done
  for recipe in vlr bckd; do
    run $recipe.balanced $seed $steps ld_hub.distill --teacher "$out/teacher/model" --recipe $recipe --balance gradient
  done
  for recipe in vlr crosskd; do  # plain training for as long as these took
    longer=$(python -c "
spent = [float(open(f'$out/{run}-$seed/cpu_seconds').read()) for run in ('$recipe', 'alone')]
print(round($steps * spent[0] / spent[1]))")
    run alone.$recipe $seed "$longer" ld_hub.train
  done
done
python "$(dirname "$0")/table.py" "$out"
