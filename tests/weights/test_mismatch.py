"""Messages about weights that do not fit."""

from tf_panoptic_fpn.weights.mismatch import SHOWN, name_problems, shape_problems


def test_layers_are_gathered_by_pattern_with_counts():
    names = [
        f"backbone/res{stage}_{block}/conv{conv}/{end}"
        for stage in (2, 3)
        for block in range(3)
        for conv in (1, 2)
        for end in ("conv/kernel", "norm/scale", "norm/shift")
    ]
    names += ["mask_head/conv1/kernel", "mask_head/conv4/kernel", "fpn/output2/bias"]
    assert list(name_problems("missing", names)) == [
        "39 missing: "
        "backbone/res2_0/conv1/conv/kernel (12 of backbone/res*_*/conv*/conv/kernel), "
        "backbone/res2_0/conv1/norm/(scale, shift) (12 of backbone/res*_*/conv*/norm/(scale, shift)"
        "), mask_head/conv1/kernel (2 of mask_head/conv*/kernel), fpn/output2/bias"
    ]
    assert list(name_problems("missing", [])) == []


def test_what_is_the_same_in_a_pattern_stays():
    names = ["res4.5.conv1.weight", "res4.5.conv2.weight", "res4.5.conv10.weight"]
    text = "3 left over: res4.5.conv1.weight (3 of res4.5.conv*.weight)"
    assert list(name_problems("left over", names)) == [text]


def test_shapes_are_those_of_the_first():
    entries = [(f"fpn/output{i}/bias", (16,), (i,), (f"fpn_output{i}.bias",)) for i in (2, 3)]
    assert list(shape_problems(entries)) == [
        "2 of another shape: fpn/output2/bias is (16,) and the source has (2,) in fpn_output2.bias "
        "(2 of fpn/output*/bias)"
    ]
    assert list(shape_problems([])) == []


def test_a_message_is_short_whatever_the_names():
    letters = "abcdefghijklm"
    names = [f"{letter}{i}.weight" for letter in letters for i in range(50)]
    (text,) = name_problems("left over", names)
    assert text.startswith("650 left over: a0.weight (50 of a*.weight), ")
    assert text.endswith(f" and {50 * (len(letters) - SHOWN)} more")
    assert "\n" not in text and len(text) < 500
