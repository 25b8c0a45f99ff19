"""The contract of engines that show hidden states: shape, no say of the batch, prompts that are too long."""

from __future__ import annotations

from unittest import SkipTest

import numpy as np

from ..core.protocols import PooledStateEngine
from ..errors import InvalidFeaturesError
from .checking import expect
from .subjects import QUERIES, TOO_LONG, Subject, hidden, reader, same


class StatesContract:
    """The part of `EngineContract` that is about hidden states."""

    def test_hidden_states_have_a_row_a_query_and_a_column_a_layer(self, subject: Subject) -> None:
        """Finite, float32, another row for another query."""
        hidden_Q_L_D = hidden(subject, QUERIES)
        shape = (len(QUERIES), len(subject.layers), subject.engine.info.hidden_size)
        same(hidden_Q_L_D.shape, shape, "shape")
        same(hidden_Q_L_D.dtype, np.dtype(np.float32), "dtype")
        expect(np.isfinite(hidden_Q_L_D).all(), "they are finite")
        num_rows = len(np.unique(hidden_Q_L_D.reshape(len(QUERIES), -1), axis=0))
        same(num_rows, len(QUERIES), "different rows")

    def test_hidden_states_do_not_depend_on_the_batch_or_on_the_other_layers(self, subject: Subject) -> None:
        """Within rounding."""
        together = hidden(subject, QUERIES)
        turned = reader(subject).hidden_states(QUERIES, subject.layers[::-1])
        np.testing.assert_allclose(turned[:, ::-1], together, rtol=1e-4, atol=1e-4)
        for row, query in enumerate(QUERIES):
            for column, layer in enumerate(subject.layers):
                alone_D = reader(subject).hidden_states([query], [layer])[0, 0]
                np.testing.assert_allclose(alone_D, together[row, column], rtol=1e-4, atol=1e-4)

    def test_hidden_states_of_a_prompt_too_long_are_nan_and_the_others_finite(self, subject: Subject) -> None:
        """One prompt that does not fit is no error."""
        hidden_Q_L_D = hidden(subject, [TOO_LONG, *QUERIES])
        expect(np.isnan(hidden_Q_L_D[0]).all(), "a prompt too long has a row of NaN")
        expect(np.isfinite(hidden_Q_L_D[1:]).all(), "the others are finite")

    def test_pooled_states_are_the_hidden_states_and_means_of_their_shape(self, subject: Subject) -> None:
        """Where the engine gives means."""
        engine = subject.engine
        if not isinstance(engine, PooledStateEngine):
            raise SkipTest("this engine gives no means")
        last_Q_L_D, mean_Q_L_D = engine.pooled_states([TOO_LONG, *QUERIES], subject.layers)
        np.testing.assert_allclose(last_Q_L_D[1:], hidden(subject, QUERIES), rtol=1e-4, atol=1e-4)
        same((mean_Q_L_D.shape, mean_Q_L_D.dtype), (last_Q_L_D.shape, np.dtype(np.float32)), "shape and dtype")
        expect(np.isnan(mean_Q_L_D[0]).all(), "a prompt too long has a row of NaN")
        expect(np.isfinite(mean_Q_L_D[1:]).all(), "the others are finite")
        expect(not np.array_equal(mean_Q_L_D[1:], last_Q_L_D[1:]), "means are not the last token's states")
        alone_D = engine.pooled_states(QUERIES[1:2], subject.layers[-1:])[1][0, 0]
        np.testing.assert_allclose(alone_D, mean_Q_L_D[2, -1], rtol=1e-4, atol=1e-4)

    def test_a_layer_that_does_not_exist_is_refused(self, subject: Subject) -> None:
        """InvalidFeaturesError names it."""
        for layer in (-1, 1000):
            try:
                reader(subject).hidden_states(QUERIES, [layer])
            except InvalidFeaturesError as error:
                expect(str(layer) in str(error), f"the error does not name layer {layer}: {error}")
            else:
                raise AssertionError(f"layer {layer} was not refused")
