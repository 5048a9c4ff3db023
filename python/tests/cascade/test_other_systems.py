"""Systems that are no networks of torch: two classifiers of scikit-learn, as a cascade."""

import numpy as np
import pytest

import agflow


@pytest.mark.slow
def test_two_classifiers_on_digits_are_routed_with_a_gain():
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    tune, held_out, test = np.split(order, [500, 1200])
    light = LogisticRegression(max_iter=1000).fit(images[tune, ::2] / 16, labels[tune])
    heavy = SVC(gamma=0.001).fit(images[tune], labels[tune])
    costs = agflow.cascade.CascadeCosts(light.coef_.size, heavy.support_vectors_.size, unit="MACs")

    def predictions(part, **options):
        return agflow.Predictions.of(
            light.predict_proba(images[part, ::2] / 16),
            heavy.decision_function(images[part]),
            labels[part],
            costs,
            classes=light.classes_,
            **options,
        )

    router = agflow.calibrate_router(predictions(held_out), tolerance=0.02)
    found = agflow.evaluate_router(predictions(test, router=router), router)
    assert router.verdict == "PASS" and router.ledger.charged < 0.8
    assert found.light < found.random < found.cascade and found.cascade > found.heavy - 0.02
    assert found.ledger.verdict == "gain"
