"""Settings of the tracker come from a YAML file."""

from __future__ import annotations

import pytest

from lib.engines import zoo
from lib.errors import InputError
from lib.siamrpn.tracker import TrackerConfig


def settings(tmp_path, text):
    (tmp_path / "tracker.yaml").write_text(text)
    return zoo.tracker_config("demo", str(tmp_path / "tracker.yaml"))


def test_a_number_without_a_point_is_a_number(tmp_path):
    assert settings(tmp_path, "penalty: 5e-2\nsmallest: 1e1\n") == TrackerConfig()


@pytest.mark.parametrize("text", ["window: 7", "rate: -0.1", "smallest: -5", "rate: .nan"])
def test_impossible_settings_are_refused(tmp_path, text):
    with pytest.raises(InputError, match=rf"tracker\.yaml: {text.split(':')[0]} "):
        settings(tmp_path, text)


def test_weights_without_settings_of_their_own_say_so(tmp_path):
    assert "PySOT's settings" in zoo.settings_note(str(tmp_path / "w.pth"))
    (tmp_path / "tracker.yaml").write_text("penalty: 0.1\n")
    assert zoo.settings_note(str(tmp_path / "w.pth")) == zoo.settings_note("demo") == ""
