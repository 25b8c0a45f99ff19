"""The model of `lora`: base model, adapter and head; and its training, which can be resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file, save

from ...core.data import FloatArray, IntArray
from ...core.files import make_folder, write_atomically
from ...errors import ModelFileError
from ...models import locate
from ...models.gguf import no_progress_bars
from .lora_options import LoraOptions

logger = logging.getLogger(__name__)

CHECKPOINT_STEPS = 10
WARMUP_SHARE = 0.1
PREDICT_ROWS = 16
RATE_FLOOR = 1e-3  # keeps the starting bias, a logit of the mean, finite


class Adapter:
    """A base model without its output layer, a LoRA adapter in it, and a linear head on the last token.

    bfloat16 base on a GPU, float32 on a CPU; adapter and head are always float32.

    Args:
        model: the peft model.
        tokenizer: its tokenizer.
        head: linear map from the last hidden state to the outputs.
        options: of the predictor.
        base_hash: SHA-256 that identifies the base model's weights.
    """

    def __init__(self, model: Any, tokenizer: Any, head: torch.nn.Linear, options: LoraOptions, base_hash: str) -> None:
        self.model, self.tokenizer, self.head = model, tokenizer, head
        self.options, self.base_hash = options, base_hash

    @classmethod
    def load(cls, options: LoraOptions, *, num_outputs: int) -> Adapter:
        """The base model with a fresh adapter, which changes nothing yet, and a head of zeros."""
        local = locate(options.base)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = transformers.AutoTokenizer.from_pretrained(local.path, trust_remote_code=False)
        with no_progress_bars():
            causal = transformers.AutoModelForCausalLM.from_pretrained(
                local.path,
                dtype=torch.bfloat16 if device == "cuda" else torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
            )
        base = causal.get_decoder()
        config = peft.LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            target_modules=["q_proj", "v_proj"],
        )
        with _seeded(options.seed), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for what it calls by a new name
            model = peft.get_peft_model(base, config).to(device)
        head = torch.nn.Linear(base.config.get_text_config().hidden_size, num_outputs).to(device)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        return cls(model, tokenizer, head, options, local.hash)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained: the adapter's weights and the head's."""
        return [each for each in self.model.parameters() if each.requires_grad] + list(self.head.parameters())

    @property
    def num_parameters(self) -> int:
        """Parameters that work on each token: all but the embeddings."""
        embeddings = sum(each.numel() for each in self.model.get_input_embeddings().parameters())
        return int(sum(each.numel() for each in self.model.parameters()) - embeddings)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Each question's tokens, its end kept where it is too long; one token at least."""
        ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [list(each[-self.options.max_tokens :]) or [int(self.tokenizer.eos_token_id)] for each in ids]

    def logits(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """The head's outputs for questions of about one length, shape (rows, outputs), float32."""
        device = self.head.weight.device
        lengths = torch.tensor([len(each) for each in ids])
        padded = torch.zeros(len(ids), int(lengths.max()), dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, each in enumerate(ids):
            padded[row, : len(each)] = torch.tensor(each)
            mask[row, : len(each)] = 1
        hidden = self.model(input_ids=padded.to(device), attention_mask=mask.to(device)).last_hidden_state
        last = hidden[torch.arange(len(ids)), (lengths - 1).to(hidden.device)]
        logits: torch.Tensor = self.head(last.float())
        return logits

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits as numbers in [0, 1]: one each, or shares of one for classes."""
        return logits.softmax(dim=1) if self.options.head == "classes" else logits.sigmoid()

    @torch.inference_mode()
    def outputs(self, texts: Sequence[str]) -> FloatArray:
        """What the head says of the questions, in [0, 1], shape (Q, outputs); one pass, long ones together."""
        ids = self.token_ids(texts)
        order = np.argsort([len(each) for each in ids], kind="stable")
        found = np.empty((len(ids), self.head.out_features), dtype=np.float32)
        self.model.eval()
        for start in range(0, len(order), PREDICT_ROWS):
            rows = order[start : start + PREDICT_ROWS]
            found[rows] = self.probabilities(self.logits([ids[row] for row in rows])).cpu().numpy()
        return found

    def arrays(self) -> dict[str, FloatArray]:
        """Adapter and head by name, float32."""
        state = {f"adapter.{name}": value for name, value in peft.get_peft_model_state_dict(self.model).items()}
        state |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        return {name: value.detach().float().cpu().numpy().copy() for name, value in state.items()}

    def restore(self, arrays: dict[str, FloatArray]) -> None:
        """Takes back what `arrays` gave."""
        parts = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        adapter = {name.removeprefix("adapter."): part for name, part in parts.items() if name.startswith("adapter.")}
        peft.set_peft_model_state_dict(self.model, adapter)
        self.head.load_state_dict({"weight": parts["head.weight"], "bias": parts["head.bias"]})


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The result of training: weights of the best epoch, all losses, and its predictions for the held-out rows."""

    arrays: dict[str, FloatArray]
    losses: list[tuple[float, float]]
    held_outputs: FloatArray


def train_adapter(
    adapter: Adapter,
    texts: Sequence[str],
    target_Q_N: FloatArray,
    weight_Q: FloatArray,
    width_N: FloatArray,
    *,
    kept: IntArray,
    held: IntArray,
    checkpoint: str,
    progress: Callable[[str, int, int], None],
) -> Trained:
    """Minimises the cross entropy of `target_Q_N` on the rows `kept`; stops when that of `held` no longer falls.

    A row weighs by `weight_Q`, an output by `width_N`; classes weigh alike.

    Every step's order and dropout depend on the seed and the step's number alone, so that a training that was killed
    goes on from its checkpoint as if it had not been.
    """
    options, ids = adapter.options, adapter.token_ids(texts)
    target, weight, width = (torch.from_numpy(array).float() for array in (target_Q_N, weight_Q, width_N))
    mean_N = np.clip(np.average(target_Q_N[kept], axis=0, weights=weight_Q[kept]), RATE_FLOOR, 1 - RATE_FLOOR)
    start = np.log(mean_N) if options.head == "classes" else np.log(mean_N / (1 - mean_N))
    with torch.no_grad():
        adapter.head.bias.copy_(torch.from_numpy(start).float())  # an untrained head says the mean curve
    optimizer = torch.optim.AdamW(adapter.parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    steps_per_epoch = -(-len(kept) // options.batch_size)
    num_steps = options.epochs * steps_per_epoch
    state = _State.open(checkpoint, adapter, optimizer, ids, (target_Q_N, weight_Q, width_N, kept))

    for step in range(state.step, num_steps):
        epoch, at = divmod(step, steps_per_epoch)
        order = np.random.default_rng([options.seed, epoch]).permutation(kept)
        rows = order[at * options.batch_size : (at + 1) * options.batch_size]
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _rate(step, num_steps)
        with _seeded(options.seed * 1_000_003 + step), torch.enable_grad():
            state.loss_sum += _step(adapter, optimizer, ids, target, weight, width, rows)
        state.step = step + 1
        progress("train", step + 1, num_steps)
        if at + 1 == steps_per_epoch:
            held_loss, outputs = _judge(adapter, texts, target_Q_N, weight_Q, width_N, held)
            state.end_epoch(adapter, state.loss_sum / len(kept), held_loss, outputs)
            logger.info("epoch %d: loss %.4f, held out %.4f", epoch + 1, *state.losses[-1])
            state.save(optimizer)
            if len(state.losses) - 1 - state.best_epoch >= options.patience:
                break
        elif (step + 1) % CHECKPOINT_STEPS == 0:
            state.save(optimizer)
    progress("train", num_steps, num_steps)
    adapter.restore(state.best)
    return Trained(state.best, state.losses, state.held_outputs)


def _step(
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    ids: Sequence[Sequence[int]],
    target: torch.Tensor,
    weight: torch.Tensor,
    width: torch.Tensor,
    rows: IntArray,
) -> float:
    """One step of the optimizer over `rows`, a few at a time; returns the sum of their losses."""
    adapter.model.train()
    optimizer.zero_grad()
    total, by_length = 0.0, sorted(rows.tolist(), key=lambda row: len(ids[row]))
    for start in range(0, len(by_length), adapter.options.micro_batch):
        part = by_length[start : start + adapter.options.micro_batch]
        loss = (_losses(adapter, adapter.logits([ids[row] for row in part]), target[part], width) * weight[part]).sum()
        (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(adapter.parameters, 1.0)
    optimizer.step()
    return total


def _losses(adapter: Adapter, logits: torch.Tensor, target: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each row: mean over outputs by their width, or of the class."""
    target = target.to(logits.device)
    if adapter.options.head == "classes":
        return torch.nn.functional.cross_entropy(logits, target, reduction="none").cpu()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (entropy * width.to(logits.device)).mean(dim=1).cpu()


def _judge(
    adapter: Adapter,
    texts: Sequence[str],
    target_Q_N: FloatArray,
    weight_Q: FloatArray,
    width_N: FloatArray,
    held: IntArray,
) -> tuple[float, FloatArray]:
    """Loss on the held-out rows, and what is said of them."""
    output = adapter.outputs([texts[row] for row in held]).astype(np.float64)
    target, clipped = target_Q_N[held], np.clip(output, 1e-6, 1 - 1e-6)
    if adapter.options.head == "classes":
        loss_H = -(target * np.log(clipped)).sum(axis=1)
    else:
        loss_H = -(width_N * (target * np.log(clipped) + (1 - target) * np.log(1 - clipped))).mean(axis=1)
    return float(np.average(loss_H, weights=weight_Q[held])), output


def _rate(step: int, num_steps: int) -> float:
    """Share of the learning rate at a step: a linear warm-up, then a linear decay."""
    warmup = max(1, round(WARMUP_SHARE * num_steps))
    return (step + 1) / warmup if step < warmup else max(0.05, (num_steps - step) / max(1, num_steps - warmup))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws from `seed` inside; the caller's random state is left as it was."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed % (1 << 63))
        yield


class _State:
    """Where the training is: kept in one safetensors file, whose name says which training it belongs to.

    Attributes:
        step: steps done.
        loss_sum: of the epoch under way.
        losses: training and held-out loss of every epoch done.
        best: weights of the best epoch.
        held_outputs: what they say of the held-out rows.
    """

    def __init__(self, path: Path | None, adapter: Adapter) -> None:
        self.path, self.adapter = path, adapter
        self.step, self.loss_sum = 0, 0.0
        self.losses: list[tuple[float, float]] = []
        self.best: dict[str, FloatArray] = adapter.arrays()
        self.held_outputs: FloatArray = np.empty((0, adapter.head.out_features))

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest held-out loss, from 0."""
        return min(range(len(self.losses)), key=lambda epoch: self.losses[epoch][1])

    @classmethod
    def open(
        cls,
        folder: str,
        adapter: Adapter,
        optimizer: torch.optim.Optimizer,
        ids: Sequence[Sequence[int]],
        data: Sequence[FloatArray | IntArray],
    ) -> _State:
        """The state of this very training (data, options, base model), or a new one."""
        if not folder:
            return cls(None, adapter)
        digest = hashlib.sha256(json.dumps([asdict(adapter.options), adapter.base_hash, [*map(list, ids)]]).encode())
        for array in data:
            digest.update(np.ascontiguousarray(array).tobytes())
        state = cls(Path(folder) / f"{digest.hexdigest()[:16]}.safetensors", adapter)
        if state.path is not None and state.path.is_file():
            try:
                state._load(optimizer)
            except Exception as error:  # cut short, or a stranger's: whatever it holds, the training can begin anew
                raise ModelFileError(
                    f"{state.path} is not a usable training state: {error}. Delete it, and the same command starts "
                    "again."
                ) from error
            logger.info("resuming from step %d of %s", state.step, state.path)
        return state

    def end_epoch(self, adapter: Adapter, loss: float, held_loss: float, held_outputs: FloatArray) -> None:
        """Notes an epoch's losses, and its weights if they are the best."""
        self.losses.append((loss, held_loss))
        self.loss_sum = 0.0
        if self.best_epoch == len(self.losses) - 1:
            self.best, self.held_outputs = adapter.arrays(), held_outputs

    def save(self, optimizer: torch.optim.Optimizer) -> None:
        """Writes the file in one step."""
        if self.path is None:
            return
        make_folder(self.path.parent)
        tensors = {f"now.{name}": torch.from_numpy(array) for name, array in self.adapter.arrays().items()}
        tensors |= {f"best.{name}": torch.from_numpy(array) for name, array in self.best.items()}
        tensors["held"] = torch.from_numpy(np.ascontiguousarray(self.held_outputs))
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value.clone() for name, value in values.items()}
        record = json.dumps({"step": self.step, "loss_sum": self.loss_sum, "losses": self.losses})
        write_atomically(self.path, save(tensors, metadata={"state": record}))

    def _load(self, optimizer: torch.optim.Optimizer) -> None:
        from safetensors import safe_open

        assert self.path is not None
        tensors = load_file(self.path)
        with safe_open(self.path, framework="pt") as file:
            record = json.loads(file.metadata()["state"])
        self.step, self.loss_sum = int(record["step"]), float(record["loss_sum"])
        self.losses = [(float(train), float(held)) for train, held in record["losses"]]
        parts: dict[str, dict[str, FloatArray]] = {"now": {}, "best": {}}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind in parts:
                parts[kind][rest] = tensor.numpy()
            elif kind == "optimizer":
                index, _, field = rest.partition(".")
                state.setdefault(int(index), {})[field] = tensor
        self.adapter.restore(parts["now"])
        self.best, self.held_outputs = parts["best"], tensors["held"].numpy()
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
