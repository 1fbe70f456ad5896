"""Settings of the tracker come from this project's YAML or PySOT's config.yaml."""

from __future__ import annotations

import pytest

from lib.engines import zoo
from lib.errors import InputError
from lib.siamrpn.tracker import TrackerConfig


def settings(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    return zoo.tracker_config("demo", str(tmp_path / "config.yaml"))


def test_the_track_part_of_pysots_config_is_read(tmp_path):
    head = "META_ARC: siamrpn_r50_l234_dwxcorr\nBACKBONE: {TYPE: resnet50}\nTRACK:\n"
    own = "  TYPE: SiamRPNTracker\n  PENALTY_K: 0.05\n  WINDOW_INFLUENCE: 0.42\n  LR: 0.38\n"
    assert settings(tmp_path, head + own) == TrackerConfig()
    # What a file does not say is PySOT's pysot/core/config.py
    assert settings(tmp_path, head + "  INSTANCE_SIZE: 255\n") == TrackerConfig(0.04, 0.44, 0.4)
    for other in ("  INSTANCE_SIZE: 287\n", "  TYPE: SiamRPNLTTracker\n", "  PENALTYK: 0.2\n"):
        with pytest.raises(InputError, match=other.split(":", maxsplit=1)[0].strip()):
            settings(tmp_path, head + other)


def test_a_number_without_a_point_is_a_number(tmp_path):
    assert settings(tmp_path, "penalty: 5e-2\nsmallest: 1e1\n") == TrackerConfig()


@pytest.mark.parametrize("text", ["window: 7", "rate: -0.1", "smallest: -5", "rate: .nan"])
def test_impossible_settings_are_refused(tmp_path, text):
    with pytest.raises(InputError, match=rf"config\.yaml: {text.split(':')[0]} "):
        settings(tmp_path, text)


def test_weights_without_settings_of_their_own_say_so(tmp_path):
    assert "PySOT's settings" in zoo.settings_note(str(tmp_path / "w.pth"))
    (tmp_path / "tracker.yaml").write_text("penalty: 0.1\n")
    assert zoo.settings_note(str(tmp_path / "w.pth")) == zoo.settings_note("demo") == ""
