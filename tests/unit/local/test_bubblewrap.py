"""Why process nodes can't run on a machine, and what to change."""

from pathlib import Path

import pytest

from rectrain_local.assets.bubblewrap import explain_refusal

SETTINGS = {
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    "kernel/unprivileged_userns_clone": ("0", "kernel.unprivileged_userns_clone=1"),
    "user/max_user_namespaces": ("0", "user.max_user_namespaces=15000"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_setting_is_named(setting: str, tmp_path: Path) -> None:
    value, way_out = SETTINGS[setting]
    path = tmp_path / "sys" / setting
    path.parent.mkdir(parents=True)
    path.write_text(value + "\n")
    said = explain_refusal("bwrap: No permissions", tmp_path, Path("/usr/bin/bwrap"), in_docker=False)
    assert f"sysctl -w {way_out}" in said
    assert "No permissions" in said


def test_docker_needs_other_options(tmp_path: Path) -> None:
    said = explain_refusal("refused", tmp_path, Path("bwrap"), in_docker=True)
    assert "--security-opt seccomp=unconfined" in said


def test_settings_that_cannot_be_read_are_passed_by(tmp_path: Path) -> None:
    (tmp_path / "sys").write_text("a file where a folder should be")
    assert "security module" in explain_refusal("no", tmp_path, Path("/usr/bin/bwrap"), False)
