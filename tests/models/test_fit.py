"""`compile`, `fit`, `evaluate` and `save` as Keras people use them, step by step (eagerly)."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from small_model import TINY_OPTIONS, make_batch, make_tiny_model

from tf_panoptic_fpn import PanopticFPN, schema
from tf_panoptic_fpn.backbones.resnet import ResNet

pytestmark = pytest.mark.usefixtures("short_backbones")

LOSSES = ("rpn_class", "rpn_box", "class", "box", "mask", "semantic")


def compiled(model):
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), run_eagerly=True)
    return model


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
def test_replicas_fit_as_one(float64):
    """On an image each; the optimizer adds the replicas' gradients up."""
    batch = make_batch(2, (64, 64))
    batch[schema.GT_CLASSES][0] = -1  # the replicas' numbers of foreground rois differ
    data = tf.data.Dataset.from_tensor_slices(batch).batch(2, drop_remainder=True)
    one = compiled(make_tiny_model())
    expected = one.fit(data, verbose=0).history
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        two = compiled(make_tiny_model())
    received = two.fit(data, verbose=0).history
    for name in ("loss", *LOSSES):
        np.testing.assert_allclose(received[name], expected[name], rtol=1e-6, err_msg=name)
    for a, b in zip(one.trainable_variables, two.trainable_variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-9, atol=1e-12, err_msg=a.path
        )


def test_saved_model_goes_on_with_the_optimizers_state(tmp_path):
    """From (batch, batch), as from batch alone; both models take the same next step."""
    batch = make_batch(1, (64, 64))
    model = compiled(make_tiny_model())
    model.fit(batch, batch, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.SGD
    assert loaded.run_eagerly and not loaded.jit_compile
    assert int(loaded.optimizer.iterations) == 1
    for model_ in (model, loaded):
        model_.fit(batch, verbose=0)
    pairs = zip(model.optimizer.variables, loaded.optimizer.variables, strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), err_msg=a.path
        )
    assert np.abs(ops.convert_to_numpy(model.optimizer.variables[2])).max() > 0
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), err_msg=a.path
        )


def test_evaluate_leaves_batch_norm_alone_and_reports_every_loss():
    backbone = ResNet(18, "sync_batch_norm", 0, stem_channels=8, width=8, name="backbone")
    model = compiled(PanopticFPN(**{**TINY_OPTIONS, "backbone": backbone}))
    batch = make_batch(1, (64, 64))
    before = model.get_weights()
    evaluated = model.evaluate(batch, return_dict=True, verbose=0)
    for variable, value in zip(model.weights, before, strict=True):
        if "seed" not in variable.path:
            np.testing.assert_array_equal(
                ops.convert_to_numpy(variable), value, err_msg=variable.path
            )
    assert set(evaluated) == {"loss", *LOSSES}
    total = sum(evaluated[name] for name in LOSSES)
    np.testing.assert_allclose(evaluated["loss"], total, rtol=1e-5)
    # With the stored statistics, not the batch's.
    dense = model.dense_outputs(batch[schema.IMAGES], batch[schema.IMAGE_SIZES], training=False)
    expected = model.weighted_losses(model.loss_terms(dense, batch))
    for name in LOSSES:
        np.testing.assert_allclose(evaluated[name], float(expected[name]), rtol=1e-5, err_msg=name)
    model.fit(batch, verbose=0)
    moved = [
        v.path
        for v, old in zip(model.weights, before, strict=True)
        if "moving" in v.path and (ops.convert_to_numpy(v) != old).any()
    ]
    assert moved


def test_images_without_instances_train():
    batch = make_batch(2, (64, 64), num_instances=0)
    assert batch[schema.GT_BOXES].shape == (2, 0, 4)
    model = make_tiny_model()
    terms = model.loss_terms(model(batch, training=True), batch)
    weighted = model.weighted_losses(terms)
    assert np.isfinite([float(value) for value in weighted.values()]).all()
    assert float(weighted["mask"]) == float(weighted["box"]) == float(weighted["rpn_box"]) == 0
    assert float(weighted["class"]) > 0


def test_training_takes_its_own_number_of_proposals(monkeypatch):
    received = {}

    def spy(proposals, *arguments):
        received["shape"] = tuple(proposals.shape)
        raise StopIteration

    monkeypatch.setattr("tf_panoptic_fpn.models.panoptic_fpn.roi_targets", spy)
    model = make_tiny_model(tasks=("instance",))
    batch = make_batch(1, (64, 64))
    with pytest.raises(StopIteration):
        model.loss_terms(model(batch, training=True), batch)
    assert received["shape"] == (1, TINY_OPTIONS["rpn_top_k_train"][1], 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "`loss` must be None. Received: 'mse'"),
        ({"metrics": ["accuracy"]}, "`metrics` must be None"),
        ({"loss_weights": [1]}, "`loss_weights` must be None"),
        ({"weighted_metrics": ["mse"]}, "`weighted_metrics` must be None"),
    ],
)
def test_losses_of_others_are_refused(options, message):
    model = make_tiny_model(tasks=("semantic",))
    with pytest.raises(ValueError, match=message):
        model.compile("sgd", **options)


def test_what_holds_no_ground_truth_is_refused():
    model = make_tiny_model(tasks=("semantic",))
    images = np.zeros((1, 64, 64, 3), "float32")
    with pytest.raises(ValueError, match=r"dicts with the ground truth.*Received: ndarray"):
        model.compute_loss(images)
    with pytest.raises(ValueError, match="no `sample_weight`"):
        model.compute_loss(images, make_batch(1, (64, 64)), sample_weight=np.ones(1))
