"""Does docs/secure-boot.md tell the truth? Every block is run in its order, every output compared."""

from pathlib import Path

from debian import tool
from transcript import ROOT, Checkout, Reader, blocks, steps


def test_every_command_prints_what_the_guide_shows(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, {"openssl": tool("openssl", "openssl")})
    checkout.env["COLUMNS"] = "200"
    reader = Reader()
    commands = 0
    for block in blocks((ROOT / "docs" / "secure-boot.md").read_text()):
        if block.kind != "console":
            checkout.put(block)
            continue
        for step in steps(block):
            said = checkout.shell(step.command)
            lack = reader.missing(step.expected, said)
            assert lack is None, f"line {block.line}: $ {step.command}\nlacks: {lack}\nsaid:\n" + "\n".join(
                said
            )
            commands += 1
    assert commands > 10
