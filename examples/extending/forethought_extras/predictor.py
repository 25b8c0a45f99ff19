"""A predictor: the mean curves of training questions that are about as long."""

import numpy as np


class LengthPredictor:
    reads = ("text",)  # "hidden" for hidden states, which is what is given where nothing is said

    def __init__(self, num_bins: int = 4):  # --predictor-option num_bins=8
        self.num_bins = num_bins

    def fit(self, features, counts):
        tried_Q = counts.num_tried_Q > 0  # a question without a trace teaches nothing
        words_Q = self._words(features)[tried_Q]
        self.edges_ = np.quantile(words_Q, np.linspace(0, 1, self.num_bins + 1)[1:-1])
        bin_Q = np.digitize(words_Q, self.edges_)
        rows = [bin_Q == each if (bin_Q == each).any() else bin_Q >= 0 for each in range(self.num_bins)]
        right_Q_B, num_Q = counts.num_right_Q_B[tried_Q], counts.num_tried_Q[tried_Q]
        self.p_ = np.array([right_Q_B[row].sum(axis=0) / num_Q[row].sum() for row in rows])
        tokens_Q_B = None if counts.tokens_Q_B is None else counts.tokens_Q_B[tried_Q]
        self.tokens_ = None if tokens_Q_B is None else np.array([tokens_Q_B[row].mean(axis=0) for row in rows])
        return self

    def predict(self, features):
        bin_Q = np.digitize(self._words(features), self.edges_)
        return self.p_[bin_Q], None if self.tokens_ is None else self.tokens_[bin_Q]

    def _words(self, features):
        return np.array([float(len(text.split())) for text in features.questions])

    def state(self):  # settings as JSON, arrays; no pickle
        arrays = {"edges": self.edges_, "p": self.p_} | ({} if self.tokens_ is None else {"tokens": self.tokens_})
        return {"num_bins": self.num_bins}, arrays

    @classmethod
    def from_state(cls, settings, arrays):
        made = cls(**settings)
        made.edges_, made.p_, made.tokens_ = arrays["edges"], arrays["p"], arrays.get("tokens")
        return made
