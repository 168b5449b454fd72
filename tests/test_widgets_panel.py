import subprocess
import sys
import threading
import time

import ipywidgets as w
import pytest
from matplotlib.figure import Figure

from ftlab.widgets.html import code_html, error_html
from ftlab.widgets.job import Job, Stopped
from ftlab.widgets.panel import Panel, _twin
from ftlab.widgets.picture import Picture


class Doubler(Panel):
    title = "Double <it>"

    def __init__(self):
        self.number = w.IntSlider(value=1, min=0, max=100, description="number")
        self.kind = w.Dropdown(options={"plain": 0, "bold": 1}, description="kind")
        self.double = w.Button(description="Double")
        self.fail = w.Button(description="Fail")
        self.answer = w.HTML()
        self.draws = 0
        super().__init__(w.HBox([self.number, self.kind]), self.double, self.fail, self.answer)
        self.on(self.number)
        self.on(self.double, self._double)
        self.on(self.fail, self._fail)

    def _double(self):
        self.number.value *= 2

    def _fail(self):
        raise ValueError("no <b>luck</b> today")

    def _render(self):
        self.draws += 1
        self.answer.value = f"<p>drawn {self.number.value}</p>"

    def describe(self):
        return f"the number is {self.number.value}"

    def code(self):
        return f"number = {self.number.value}\nprint(number < 3)" if self.number.value else ""


@pytest.fixture(autouse=True)
def as_for_a_person(monkeypatch):
    monkeypatch.delenv("FTLAB_CI", raising=False)


def wait_for(condition):
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, "it did not happen within ten minutes"
        time.sleep(0.01)


def test_a_value_and_a_click_are_drawn():
    panel = Doubler()
    panel.number.value = 5
    panel.double.click()
    assert repr(panel) == "the number is 10"
    assert "drawn 10" in panel.answer.value
    assert "the number is 10" in panel._status.value


def test_what_drawing_sets_is_not_a_choice():
    class Clamped(Doubler):
        def _render(self):
            super()._render()
            self.number.value = min(self.number.value, 7)

    panel = Clamped()
    before = panel.draws
    panel.number.value = 50
    assert panel.number.value == 7
    assert panel.draws == before + 1


def test_an_exception_in_a_handler_is_shown_escaped_with_its_traceback():
    panel = Doubler()
    panel.fail.click()
    assert isinstance(panel.failure, ValueError)
    shown = panel._error.value
    assert "ValueError" in shown
    assert "no &lt;b&gt;luck&lt;/b&gt; today" in shown
    assert "_fail" in shown  # the traceback
    assert 'role="alert"' in shown


def test_the_next_success_takes_the_error_away():
    panel = Doubler()
    panel.fail.click()
    panel.number.value = 3
    assert panel.failure is None
    assert panel._error.value == ""


def test_an_exception_while_drawing_is_shown():
    class Broken(Doubler):
        def describe(self):
            return f"{10 / self.number.value}"

    panel = Broken()
    panel.number.value = 0
    assert isinstance(panel.failure, ZeroDivisionError)
    assert "ZeroDivisionError" in panel._error.value


def test_after_a_failed_handler_the_picture_shows_the_state_as_it_is():
    class Half(Doubler):
        def _fail(self):
            self.number.set_trait("value", 42)
            super()._fail()

    panel = Half()
    panel.fail.click()
    assert "drawn 42" in panel.answer.value
    assert panel.failure is not None


def test_a_lesson_under_test_raises_what_a_person_sees(monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")
    panel = Doubler()
    panel.on(panel.kind, panel._fail)
    with pytest.raises(ValueError, match="luck"):
        panel.kind.value = 1
    assert "ValueError" in panel._error.value


def test_a_panel_that_cannot_be_drawn_fails_where_it_is_made():
    class Broken(Doubler):
        def _render(self):
            raise KeyError("nothing to draw")

    with pytest.raises(KeyError, match="nothing to draw"):
        Broken()


def test_a_panel_without_a_line_about_itself_says_so():
    with pytest.raises(NotImplementedError, match=r"Panel needs describe\(\)"):
        Panel()


def test_the_code_is_shown_on_demand_and_follows_the_state():
    panel = Doubler()
    assert panel._code.value == ""
    panel.show_code.value = True
    assert "number = 1" in panel._code.value
    assert "print(number &lt; 3)" in panel._code.value
    panel.number.value = 4
    assert "number = 4" in panel._code.value


def test_where_there_is_no_code_there_is_no_button():
    panel = Doubler()
    assert panel.show_code.layout.display is None
    panel.number.value = 0
    assert panel.show_code.layout.display == "none"


def test_the_twin_says_what_the_panel_says():
    panel = Doubler()
    panel.kind.value = 1
    panel.fail.click()
    html = panel.to_html()
    for part in ["Double &lt;it&gt;", "the number is 1", "kind: bold", "drawn 1", "no &lt;b&gt;luck", "The code"]:
        assert part in html
    assert "Traceback" not in html
    assert "<button" not in html


def test_the_twin_says_the_first_choice_of_a_slider():
    slider = w.SelectionSlider(options=[1, 2, 5], value=1, description="passes")  # its label is empty
    assert _twin(slider) == "<p>passes: 1</p>"
    slider.value = 5
    assert _twin(slider) == "<p>passes: 5</p>"


def test_the_twin_depends_on_the_state_alone():
    one, two = Doubler(), Doubler()
    for panel in (one, two):
        panel.number.value = 9
    assert one.to_html() == two.to_html()
    two.number.value = 8
    assert one.to_html() != two.to_html()


def test_display_brings_text_twin_and_widget():
    panel = Doubler()
    bundle = panel._repr_mimebundle_(include=None, exclude=None)
    assert bundle["text/plain"] == "the number is 1"
    assert bundle["text/html"] == panel.to_html()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.view.model_id


def test_a_stored_output_brings_no_widget_that_would_hide_the_twin(monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")
    assert set(Doubler()._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_the_panel_has_its_class_for_style_and_for_tests():
    assert "ftlab-panel" in Doubler().view._dom_classes


def test_the_panel_has_its_name_for_a_screen_reader():
    frame = Doubler().view.children[0]
    assert frame.label == "Double <it>"
    assert "aria-label" in frame._esm
    assert "--jp-error-color1" in frame._css


def test_a_picture_has_a_text_and_its_twin_is_the_text():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([3, 1])
    picture = Picture()
    assert picture.to_html() == ""
    picture.show(figure, 'It says "falls"')
    assert 'src="data:image/png;base64,iVBOR' in picture.value
    assert 'alt="It says &quot;falls&quot;"' in picture.value
    assert picture.to_html() == "<p>[Picture: It says &quot;falls&quot;]</p>"


def test_errors_and_code_are_escaped():
    assert "<script>" not in error_html(ValueError("<script>x</script>"))
    assert "<script>" not in code_html("<script>x</script>")
    assert "(no message)" in error_html(ValueError())


# -- jobs ------------------------------------------------------------------------------------------


def endless(job):
    step = 0
    while True:
        step += 1
        job.tick(step, 10**9)
        time.sleep(0.001)


def test_a_job_runs_beside_and_returns_its_result():
    seen = []

    def work(job):
        seen.append(threading.current_thread())
        return sum(job.track([1, 2, 3]))

    job = Job(work, name="beside")
    job.start()
    assert job.wait(600) == 6
    assert seen[0] is not threading.current_thread()
    assert repr(job) == "beside: 3 of 3, done"
    assert job.bar.value == 1.0
    assert "3 of 3" in job.text.value


def test_stop_answers_and_the_buttons_follow():
    job = Job(endless, name="endless")
    assert (job.start_button.disabled, job.stop_button.disabled) == (False, True)
    job.start_button.click()
    wait_for(lambda: "of 1000000000" in job.text.value)
    assert job.running
    assert (job.start_button.disabled, job.stop_button.disabled) == (True, False)
    job.stop_button.click()
    job.wait(600)
    assert not job.running
    assert "stopped" in repr(job)
    assert (job.start_button.disabled, job.stop_button.disabled) == (False, True)


def test_a_job_can_be_started_again_after_stop():
    job = Job(endless, name="again")
    for _ in range(2):
        job.start()
        job.stop()
        job.wait(600)
        assert not job.running


def test_starting_twice_is_one_run():
    runs = []
    job = Job(lambda job: (runs.append(1), endless(job)), name="once")
    job.start()
    job.start()
    job.close()
    assert runs == [1]


def test_a_new_job_of_the_same_name_stops_the_old_one():
    old = Job(endless, name="cell")
    old.start()
    other = Job(endless, name="another cell")
    other.start()
    Job(endless, name="cell")
    assert not old.running
    assert other.running
    other.close()


def test_an_error_in_the_work_is_shown():
    def work(job):
        raise RuntimeError("shapes <differ>")

    job = Job(work, name="broken")
    job.start()
    job.wait(600)
    assert isinstance(job.error, RuntimeError)
    assert "shapes &lt;differ&gt;" in job.text.value
    assert "Traceback" in job.text.value
    assert "failed" in repr(job)


def test_under_test_start_waits_and_raises(monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")
    good = Job(lambda job: list(job.track("ab")), name="waits")
    good.start()
    assert good.result == ["a", "b"]

    def work(job):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        Job(work, name="raises").start()


def test_at_most_ten_messages_a_second():
    job = Job(lambda job: [job.tick(step, 10**6) or time.sleep(0.001) for step in range(500)], name="quiet")
    messages = []
    job.bar.observe(lambda _: messages.append(1), "value")
    job.text.observe(lambda _: messages.append(1), "value")
    start = time.monotonic()
    job.start()
    job.wait(600)
    assert 2 <= len(messages) <= 10 * (time.monotonic() - start) + 3


def test_what_is_counted_can_be_said():
    job = Job(lambda job: job.tick(3, 3, unit="epochs", loss=0.5), name="unit")
    job.start()
    job.wait()
    assert repr(job) == "unit: 3 of 3 epochs loss 0.5, done"


def test_tick_raises_stopped_so_that_the_work_can_tidy_up():
    tidied = []

    def work(job):
        try:
            endless(job)
        except Stopped:
            tidied.append(1)
            raise

    job = Job(work, name="tidy")
    job.start()
    job.close()
    assert tidied == [1]
    assert "stopped" in repr(job)


ENDS_WHILE_TRAINING = """
import time, torch
from ftlab.widgets.job import Job

def work(job):
    layer = torch.nn.Conv2d(3, 8, 3)
    while True:
        layer(torch.ones(4, 3, 64, 64)).sum().backward()
        job.tick(1, 2)

job = Job(work)
job.start()
while "of" not in repr(job):
    time.sleep(0.01)
print("leaving")
"""


def test_python_ends_well_while_a_job_runs():
    ran = subprocess.run([sys.executable, "-c", ENDS_WHILE_TRAINING], capture_output=True, text=True, timeout=600)
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "leaving", "")


class Trainer(Doubler):
    def __init__(self):
        self.steps = 0
        self.job = Job(self._train, name="Train", on_end=self.refresh)
        self.wait_for_it = w.Button(description="Wait")
        Panel.__init__(self, self.job)
        self.on(self.wait_for_it, self.job.close)

    def _train(self, job):
        for _ in job.track(range(3)):
            self.steps += 1
            self.refresh()

    def _render(self):
        pass

    def describe(self):
        return f"{self.steps} steps"

    def code(self):
        return ""


def test_a_panel_follows_its_job():
    panel = Trainer()
    panel.job.start_button.click()
    panel.job.wait(600)
    wait_for(lambda: "3 steps" in panel._status.value)
    assert "Train: 3 of 3, done" in panel.to_html()


def test_a_handler_may_wait_for_a_job_that_draws():
    panel = Trainer()
    panel.job.work = lambda job: [panel.refresh() or job.tick(1, 2) for _ in iter(int, 1)]
    panel.job.start()
    waiting = threading.Thread(target=panel.wait_for_it.click, daemon=True)
    waiting.start()
    waiting.join(600)
    assert not waiting.is_alive()


def test_closing_the_panel_stops_its_job():
    panel = Trainer()
    panel.job.work = endless
    panel.job.start()
    panel.close()
    assert not panel.job.running
