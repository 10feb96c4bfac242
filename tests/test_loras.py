import subprocess
import sys
from pathlib import Path

from benchmark.records.profile import Profile
from tests.synthetic import write_cell

ROOT = Path(__file__).parents[1]


def test_every_lora_that_is_there_gets_a_card(tmp_path):
    profile = Profile.read(ROOT / "profiles/smoke.yaml")
    for key in profile.cells():
        if key.reward == "hps" and key.seed == 0:
            folder = write_cell(tmp_path, key, profile)
            if key.variant != "draft_k-trailing":
                (folder / "lora").mkdir()
                (folder / "lora/weights.safetensors").write_text("w")
            if key.variant == "shortft":
                (folder / "lora/slots.json").write_text("{}")

    def run(*arguments):
        line = [sys.executable, "-m", "benchmark.loras", "--params", str(ROOT / "profiles/smoke.yaml"), *arguments]
        return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)

    result = run("--results", str(tmp_path))
    assert result.returncode == 0, result.stderr
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
    assert run("--results", str(tmp_path), "--reward", "symmetry").returncode == 1
    bad = run("--params", "no.yaml")
    assert (bad.returncode, len(bad.stderr.strip().splitlines())) == (2, 1)
