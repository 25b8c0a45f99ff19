#!/bin/sh
# Makes the logs in tests/logs with the real tools against a server of a small model: two effort levels, two epochs.
#
#   pip install inspect-ai==0.3.285 'lm-eval[api]==0.4.13'
#   vllm serve MODEL --served-model-name coder --chat-template docs/examples/levels.jinja --max-model-len 1024
#   sh benchmarks/evaluation_logs/make.sh http://127.0.0.1:8000/v1 tests/logs
#
# The questions are the first eight of the package's own (GSM8K, MIT). What says where they were made is taken out.
set -eu
url=$1 out=$(realpath -m "$2") here=$(realpath "$(dirname "$0")") work=$(mktemp -d)
export LOCAL_BASE_URL="$url" LOCAL_API_KEY=none OPENAI_API_KEY=none HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 DO_NOT_TRACK=1
export QUESTIONS=questions.jsonl
cp "$here"/gsm8k_small.py "$here"/gsm8k_small.yaml "$work"
cd "$work"
python "$here"/scrub.py questions "$here"/../../src/forethought/data/gsm8k-demo.jsonl > questions.jsonl
inspect() { command inspect eval gsm8k_small.py --model openai-api/local/coder --max-tokens 120 --temperature 0.7 --top-p 1 \
  --max-connections 16 --no-log-realtime --display plain "$@"; }
for effort in low high; do
  inspect --reasoning-effort $effort --epochs 2 --log-dir inspect/$effort &
  for seed in 1 2; do
    lm_eval run --model local-chat-completions --apply_chat_template --tasks gsm8k_small --include_path . --log_samples \
      --model_args "model=coder,base_url=$url/chat/completions,num_concurrent=8" \
      --gen_kwargs reasoning_effort=$effort max_gen_toks=120 temperature=0.7 seed=$seed --output_path lm-eval/$effort-$seed &
  done
done
inspect --reasoning-effort low --limit 3 --log-dir inspect-json --log-format json &
wait
python "$here"/scrub.py logs "$work" "$out"
