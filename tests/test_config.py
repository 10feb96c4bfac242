import pytest

from benchmark.config import Budget, InputError, read_prompts, resolve


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("5TFLOP", 5, "TFLOP"),
        ("120s", 120, "s"),
        ("2000img", 2000, "img"),
        ("40 steps", 40, "step"),
        (".5pflop", 0.5, "PFLOP"),
    ],
)
def test_budgets(text, amount, unit):
    assert Budget.parse(text) == Budget(amount=amount, unit=unit)


@pytest.mark.parametrize("text", ["", "ten", "0s", "-3s", "5", "5 bananas", "1e3s", "nans"])
def test_budgets_that_are_none(text):
    with pytest.raises(ValueError, match="budget"):
        Budget.parse(text)


def test_share_spent():
    spent = {"operations": int(2e12), "seconds": 30.0, "images": 100, "steps": 5}
    shares = [Budget.parse(t).share_spent(**spent) for t in ("4TFLOP", "60s", "200img", "10step")]
    assert shares == [0.5] * 4


def config(**changes):
    given = {"suite": "mini", "method": "shortft", "reward": "hps", "seed": 0, "budget": None, "device": "cpu"}
    return resolve(**given | {"prompts": None, "overrides": []} | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "shortfd"}, ["unknown method", "'shortft'", "draft_k"]),
        ({"suite": "mni"}, ["unknown suite", "mini"]),
        ({"reward": "hsp"}, ["unknown reward", "'hps'", "symmetry"]),
        ({"reward": "2*hps + pikscore"}, ["unknown reward", "'pickscore'"]),
        ({"reward": "hps*hps"}, ["not a sum of rewards"]),
        ({"budget": "lots"}, ["budget 'lots'", "5TFLOP"]),
        ({"budget": "0s"}, ["budget '0s'"]),
        ({"seed": -1}, ["seed"]),
        ({"overrides": ["tail"]}, ["name=value"]),
        ({"overrides": ["tial=3"]}, ["unknown setting of shortft", "'tail'", "learning_rate"]),
        ({"overrides": ["tail=0"]}, ["tail", "greater than or equal to 1", "0"]),
        ({"overrides": ["learning_rate=fast"]}, ["learning_rate", "number", "fast"]),
        ({"overrides": ["shortcut=teleport"]}, ["shortcut", "few-step", "naive"]),
    ],
)
def test_bad_input_is_named_in_one_line(changes, words):
    with pytest.raises(InputError) as error:
        config(**changes)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_overrides_reach_the_method_and_the_run():
    made = config(overrides=["tail=3", "learning-rate=3e-4", "shares=0.7,0.1,0.1,0.1"])
    assert made.build_method().tail == 3
    assert made.build_method().shares == (0.7, 0.1, 0.1, 0.1)
    assert made.settings.learning_rate == 3e-4


def test_folders_tell_settings_apart(tmp_path):
    standard = config()
    assert standard.folder(tmp_path) == tmp_path / "mini/hps/shortft/seed-0"
    assert config(budget=standard.budget).folder(tmp_path) == standard.folder(tmp_path)
    other = config(overrides=["tail=3"]).folder(tmp_path)
    assert other.name.startswith("seed-0-")
    assert other != config(budget="7step").folder(tmp_path)
    assert config(reward="10*pickscore + 2*hps").folder(tmp_path).parts[-3] == "2xhps+10xpickscore"


def test_prompt_files(tmp_path):
    good, empty, binary = (tmp_path / name for name in ("good", "empty", "binary"))
    good.write_text("a cat\n\n  a dog \n")
    empty.write_text("\n \n")
    binary.write_bytes(b"a \xff cat")
    assert read_prompts(good) == ["a cat", "a dog"]
    for path, word in ((empty, "empty"), (binary, "UTF-8"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(InputError, match=word):
            read_prompts(path)
