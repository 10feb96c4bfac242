from benchmark import loras
from benchmark.records import artifacts
from benchmark.records.profile import Profile
from tests.conftest import ROOT, call, refused
from tests.synthetic import write_cell


def test_every_lora_that_is_there_gets_a_card(tmp_path):
    profile = Profile.read(ROOT / "profiles/smoke.yaml")
    for key in profile.cells():
        if key.reward == "hps" and key.seed == 0:
            lora = artifacts(tmp_path, write_cell(tmp_path, key, profile)) / "lora"
            if key.variant != "draft_k-trailing":
                lora.mkdir(parents=True)
                (lora / "weights.safetensors").write_text("w")
            if key.variant == "shortft":
                (lora / "slots.json").write_text("{}")

    def run(*arguments):
        return call(loras.main, "--params", ROOT / "profiles/smoke.yaml", *arguments)

    result = run("--results", tmp_path)
    assert result.exit_code == 0, result.output
    assert "draft_k-trailing: no LoRA" in result.stdout
    made = tmp_path / "loras/mini/hps"
    assert {p.parent.name for p in made.glob("*/weights.safetensors")} == {
        "draft_k", "shortft", "shortft-one-lora", "shortft-few-step-policy",
    }  # fmt: skip
    assert "attach_slots" in (made / "shortft/README.md").read_text()
    card = (made / "draft_k/README.md").read_text()
    assert "load_lora_weights" in card
    assert "not Stable Diffusion" in card
    assert "| target reward (hps) |" in card
    assert run("--results", tmp_path, "--reward", "symmetry").exit_code == 1
    assert refused(run("--params", "no.yaml"))
