"""The page names every trial and draws what it should."""

from rung.sweeps.outcome import outcomes_of, verdict
from rung.sweeps.report import write_report
from rung.sweeps.results import importances
from rung.sweeps.trials import Trials


def bare_summary(outcomes):
    """Of trials that were evaluated on no test record."""
    return {
        "verdict": verdict(outcomes),
        "states": {"finished": len(outcomes)},
        "epochs": 0,
        "seconds": 1.0,
        "best": {"test": {}, "num_test_records": 0},
        "untouched_test": {},
        "importance": {},
    }


def test_a_page_with_finished_pruned_and_failed_trials(make_sweep, play, tmp_path):
    config = make_sweep()
    trials = Trials(config)
    play(trials, 0, [0.5])
    play(trials, 1, [0.5, 0.3, 0.2])
    for number in range(2, 7):
        play(trials, number, [0.5, 0.1 * number, 0.05 * number], state="pruned" if number % 2 else "finished")
    play(trials, 7, [], state="failed", error="OutOfMemoryError: tried <too> much")
    outcomes = outcomes_of(trials, config.sweep.objectives)
    summary = {
        "verdict": verdict(outcomes),
        "states": {"finished": 5, "pruned": 2, "failed": 1},
        "epochs": 12,
        "seconds": 80.0,
        "best": {"test": {"energy_mae": 0.1}, "num_test_records": 4},
        "untouched_test": {"energy_mae": 0.5},
        "importance": importances(outcomes),
    }
    html = write_report(config, outcomes, summary, tmp_path).read_text()
    assert "Trial 2 is best" in html
    assert "OutOfMemoryError: tried &lt;too&gt; much" in html
    assert html.count('class="plot"') == 5  # parallel coordinates, rate against error, importance, curves, time
    assert "freeze depth 2" in html
    assert "worse than others" in html


def test_a_sweep_of_which_little_is_known_still_has_a_page(make_sweep, play, tmp_path):
    config = make_sweep()
    trials = Trials(config)
    play(trials, 0, [0.5])
    outcomes = outcomes_of(trials, config.sweep.objectives)
    summary = bare_summary(outcomes)
    assert "Fewer than two searched trials" in write_report(config, outcomes, summary, tmp_path).read_text()


def test_a_page_says_who_took_over_whom(make_sweep, play, tmp_path):
    config = make_sweep(scheduler={"kind": "pbt", "interval": 2})
    trials = Trials(config)
    for number in range(4):
        play(trials, number, [0.5, 0.4])
    summary = bare_summary(outcomes_of(trials, config.sweep.objectives))
    page = write_report(config, outcomes_of(trials, config.sweep.objectives), summary, tmp_path)
    assert "No trial took over another one." in page.read_text()
    trials.update(3, takeovers=[{"epochs": 2, "source": 2, "values": {"optimizer.learning_rate": 0.25}}])
    html = write_report(config, outcomes_of(trials, config.sweep.objectives), summary, tmp_path).read_text()
    assert "took over trial" in html
    assert "learning_rate 0.25" in html
