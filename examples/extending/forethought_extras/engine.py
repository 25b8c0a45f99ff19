"""An engine: `think` and `answer` stand for your model, whose tokens here are words."""

from forethought.core.data import EngineInfo, Generation, Probe, StopReason


class WordEngine:
    def __init__(self, model, *, template, sampling=None, context_tokens=4096, longest: int = 100):
        self.context_tokens, self.longest = context_tokens or 4096, longest  # --engine-option longest=40
        self.info = EngineInfo("words", model, template=template.name, template_hash=template.hash)

    def think(self, prompt, seed):  # the whole thought, as tokens; the same seed gives the same thought
        return [f"step{number}" for number in range(10 + seed % self.longest)]

    def answer(self, prompt, thought):  # forced after a thought, ended or cut
        return [str(len(thought))]

    async def generate(self, requests):
        for asked in requests:  # several at once, where the model can
            prompt = asked.query.text.split()
            key = (asked.query.id, asked.sample, asked.budget)
            if asked.budget < 0 or len(prompt) + asked.budget + 8 > self.context_tokens:  # an error is data
                failed = ("", 0, "", 0, 0, len(prompt), StopReason.ERROR, (), "prompt and budget do not fit")
                yield Generation(*key, *failed, option=asked.label)
                continue
            whole = self.think(prompt, asked.seed)
            thought = whole[: asked.budget]  # never more than the budget
            ended = StopReason.NATURAL if len(whole) < asked.budget else StopReason.BUDGET
            cuts = [cut for cut in sorted(set(asked.probe_budgets)) if cut < len(thought)]
            probes = tuple(self._probe(prompt, thought, cut) for cut in cuts)
            answer = self.answer(prompt, thought)
            counts = (len(answer), 1, len(prompt))  # tokens of the answer, of the suffix before it, of the prompt
            said = (" ".join(thought), len(thought), " ".join(answer))
            yield Generation(*key, *said, *counts, ended, probes, option=asked.label)

    def _probe(self, prompt, thought, cut):
        answer = self.answer(prompt, thought[:cut])
        return Probe(cut, " ".join(answer), len(answer))

    def close(self): ...
