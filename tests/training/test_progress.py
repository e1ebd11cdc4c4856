import datetime
import types

from tf_panoptic_fpn.training import progress
from tf_panoptic_fpn.training.progress import expected_end, progress_bar


class Friday(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 27, 23, 30)


def test_expected_end_at_the_mean_rate_of_this_start(monkeypatch):
    settings = types.SimpleNamespace(steps=100, batch_size=2)
    with progress_bar(settings, start=40) as bar:
        bar.update(2 * 20)  # of 60 that are left
        bar._time = lambda: bar.start_t + 1200
        monkeypatch.setattr(progress.datetime, "datetime", Friday)
        assert expected_end(bar) == "Sat 00:10"  # 40 minutes later
