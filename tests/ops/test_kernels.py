import keras

from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels


def test_other_backends_have_no_tensorflow_kernels(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not use_tensorflow_kernels()


def seen_by(tf, **options):
    """Traces the call in a function, a loop in it and a function called from that loop."""
    seen = {}

    @tf.function
    def called(x):
        seen["called"] = use_tensorflow_kernels()
        return x + 1

    def body(x):
        seen["loop"] = use_tensorflow_kernels()
        return called(x)

    @tf.function(autograph=False, **options)
    def outer(x):
        seen["outer"] = use_tensorflow_kernels()
        return tf.map_fn(body, x)

    outer(tf.zeros([2]))
    return seen


def test_eager(tf):
    assert use_tensorflow_kernels()


def test_plain_graph(tf):
    assert seen_by(tf) == {"outer": True, "loop": True, "called": True}


def test_compiled_graph(tf):
    seen = seen_by(tf, jit_compile=True)
    assert seen == {"outer": False, "loop": False, "called": False}


def test_again_after_a_compiled_graph(tf):
    seen_by(tf, jit_compile=True)
    assert use_tensorflow_kernels()
