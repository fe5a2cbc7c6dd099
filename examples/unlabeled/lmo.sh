#!/usr/bin/env bash
# Every run of the tables of photographs in README.md. About four hours on one slow CPU core.
#   examples/unlabeled/lmo.sh DATA TEACHER_BACKBONE STUDENT_BACKBONE OUT
# DATA              COCO directory of LM-O: train/ val/ annotations/instances_{train,val}.json
# TEACHER_BACKBONE  safetensors file of timm's tf_efficientnet_lite0 (ImageNet weights)
# STUDENT_BACKBONE  safetensors file of timm's mobilenetv2_100 (ImageNet weights)
# OUT               run directories go here; runs that are there already are not made again
set -euo pipefail
data=$1 teacher_weights=$2 student_weights=$3 out=$4
here=$(dirname "$0")
head="--fpn_channels 64 --head_width 64 --head_depth 2 --anchor_scale 4"
fit="--image_size 160 214 --optimizer adamw --lr 0.002 --scale_lr false --lr_schedule cosine
  --clip_grad_norm 10 --channels_last --ema off --workers 0 --log_every 10"
export OMP_NUM_THREADS=1

[ -d "$out/few" ] || python "$here/split.py" "$data" 30 "$out/few"
if [ ! -f "$out/teacher/result.json" ]; then  # somebody else's: it has seen all labels
  python -m ld_hub.train gfocal --backbone tf_efficientnet_lite0 --backbone_checkpoint "$teacher_weights" \
    $head $fit --batch_size 8 --data "$data" --steps 300 --output_dir "$out/teacher"
fi
teach="--teacher $out/teacher/model"
pool="--unlabeled $out/few/unlabeled.txt --unlabeled_batch 4"

run() {  # run NAME SEED STEPS DATA COMMAND...: one row's run of one seed; its seconds of CPU time go beside its result
  local run=$out/$1-$2 seed=$2 steps=$3 images=$4
  shift 4
  [ -f "$run/result.json" ] && return
  local TIMEFORMAT=%U
  { time python -m "$@" $student $fit --batch_size 4 --data "$images" --steps "$steps" --seed "$seed" \
    --output_dir "$run" > "$run.log" 2>&1; } 2> "$run.cpu"
  mv "$run.cpu" "$run/cpu_seconds"
}

few=$out/few
boxes_alone="--unlabeled_terms false --labeled_terms false"

rows() {  # rows PREFIX SEED: every row of $student, with 30 labels and 80 images without, and with all 110 labels
  run "$1alone" "$2" 200 "$few" ld_hub.train
  run "$1alone.twice" "$2" 400 "$few" ld_hub.train
  run "$1alone.long" "$2" 800 "$few" ld_hub.train
  run "$1targets" "$2" 200 "$few" ld_hub.distill $teach --recipe vlr $pool $boxes_alone
  run "$1targets.vlr" "$2" 200 "$few" ld_hub.distill $teach --recipe vlr $pool
  run "$1targets.bckd" "$2" 200 "$few" ld_hub.distill $teach --recipe bckd $pool
  run "$1auto" "$2" 200 "$few" ld_hub.distill $teach --recipe auto $pool
  run "$1all.alone" "$2" 200 "$data" ld_hub.train
  run "$1all.alone.twice" "$2" 400 "$data" ld_hub.train
  run "$1all.vlr" "$2" 200 "$data" ld_hub.distill $teach --recipe vlr
  run "$1all.bckd" "$2" 200 "$data" ld_hub.distill $teach --recipe bckd
  run "$1all.auto" "$2" 200 "$data" ld_hub.distill $teach --recipe auto
}

for seed in ${SEEDS:-0 1 2}; do
  student="gfocal --backbone test_resnet --pretrained_backbone false $head"
  rows "" "$seed"
  run targets.crossld "$seed" 200 "$few" ld_hub.distill $teach --recipe crossld $pool
  run auto.balanced "$seed" 200 "$few" ld_hub.distill $teach --recipe auto $pool --balance gradient
  student="gfocal --backbone mobilenetv2_100 --backbone_checkpoint $student_weights $head"
  rows imagenet. "$seed"
  run imagenet.alone.equal "$seed" 520 "$few" ld_hub.train  # as many seconds of the processor as auto takes
done
