"""The listening page, in a real browser: headless Chromium, spoken to over the DevTools protocol's pipe."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time

import numpy as np
import pytest
import soundfile

from modules.evaluation import MelDistance
from pipeline.report import report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Worst mel distance: b (soundstorm). Best: c. The order of the page is a, b, c.
DISTANCES = {"a": 5.0, "b": 9.5, "c": 2.0}
SECONDS = {"a": 1.0, "b": 1.5, "c": 2.0}


class Browser:
    """A page in a headless Chromium; commands and events are JSON, ended by a zero byte."""

    def __init__(self, binary, profile):
        # Out of the way of 3 and 4, where Chromium expects its pipe.
        (reads, self.to), (self.of, writes) = (
            [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in os.pipe()] for _ in range(2)
        )

        def attach():
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"]
        self.process = subprocess.Popen(
            [binary, *options, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            preexec_fn=attach, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(reads)
        os.close(writes)
        self.unread, self.number, self.events, self.session = b"", 0, [], None
        targets = self.command("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.command("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method, **values):
        self.number += 1
        message = {"id": self.number, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def read(self, seconds=60):
        end = time.monotonic() + seconds
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.of], [], [], max(end - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            self.unread += os.read(self.of, 1 << 16)
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression):
        found = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, address):
        self.events = []
        self.command("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())

    def complaints(self):
        """What the console shows as errors or warnings, and exceptions."""
        return [
            event
            for event in self.events
            if event["method"] == "Runtime.exceptionThrown"
            or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] in ("error", "warning"))
            or (event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "warning"))
        ]

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.of)


def make_report(results, absent=False):
    """Report on three utterances by a recording and a system, with sounds."""
    scorer = MelDistance()
    rows = []
    for id, distance in DISTANCES.items():
        for system, condition, value in (("original", "reference", 0.0), ("soundstorm", "prompted", distance)):
            clip = f"clips/{id}/{system}.flac"
            (results / clip).parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(0).normal(0, 0.1, int(16_000 * SECONDS[id]))
            soundfile.write(results / clip, noise, 16_000)
            rows.append(
                {
                    "id": id, "split": "other", "condition": condition, "system": system, "text": f'<b>"{id}" & more',
                    "seconds": SECONDS[id], "prompt_seconds": 0.5, "clip": clip, "problems": {},
                    "scores": {} if absent else {"mel": {"mel_distance": value}},
                    "revisions": {} if absent else {"mel": "log-mel L1@1"},
                }
            )  # fmt: skip
    measures = [measure.as_dict() for measure in scorer.measures]
    identity = None if absent else scorer.identity()
    described = {"name": "mel", "class": "MelDistance", "identity": identity, "measures": measures}
    missing = [{"name": "mel", "reason": "no ears", "remedy": "grow some"}] if absent else []
    run = {"scorers": [described], "absent": missing, "data": {}, "rejected": []}
    (results / "run.json").write_text(json.dumps(run))
    (results / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    timing = {"system": "soundstorm", "stage": "soundstorm", "audio_seconds": 10.0, "seconds": [1.0]}
    (results / "speed.jsonl").write_text(json.dumps(timing | {"device": "a CPU", "passes": 27}))
    report([results], results.parent / "report", resamples=10)
    return results.parent / "report"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("page") / "results")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    browser = Browser(binary, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


IDS = "[...document.querySelectorAll('.clip')].map((card) => card.dataset.id).join('')"
LOADED = """new Promise((done) => {
  const players = [...document.querySelectorAll('audio')];
  const look = () => players.every((player) => player.readyState || player.error) ? done(
    players.map((player) => player.error ? player.error.message : player.duration)) : setTimeout(look, 20);
  look();
})"""


def test_in_a_browser_players_load_sorting_works_and_nothing_complains(browser, folder):
    browser.open((folder / "index.html").as_uri())
    assert browser.evaluate(IDS) == "abc"
    durations = browser.evaluate(LOADED)
    assert durations == pytest.approx([1.0, 1.0, 1.5, 1.5, 2.0, 2.0], abs=0.01)
    lengths = "[...document.querySelectorAll('.length')].map((said) => said.textContent)"
    assert browser.evaluate(lengths) == ["1.0 s", "1.0 s", "1.5 s", "1.5 s", "2.0 s", "2.0 s"]

    def choose(select, value):
        browser.evaluate(
            f"(() => {{ const chosen = document.getElementById('{select}'); chosen.value = '{value}';"
            "chosen.dispatchEvent(new Event('change')); return chosen.value; })()"
        )
        return browser.evaluate(IDS)

    assert choose("order", "worst") == "bac"
    assert choose("order", "best") == "cab"
    assert browser.evaluate("document.querySelector('.clip output').textContent") == (
        "Mel distance dB: 2.00 · SoundStorm, prompted"
    )
    assert choose("system", "original-reference") == "abc"  # all the same: in the order of the page
    assert choose("order", "given") == "abc"
    # A shared address sorts, too.
    browser.evaluate("location.hash = '#sort=mel/mel_distance&order=worst&system='")
    assert browser.evaluate(f"new Promise((done) => setTimeout(() => done({IDS}), 50))") == "bac"
    pictures = "[...document.images].map((image) => (image.loading = 'eager', image.decode()))"
    assert browser.evaluate(f"Promise.all({pictures}).then(() => document.images.length)") == 7
    assert browser.evaluate("document.querySelector('.clip .text').textContent") == '<b>"b" & more'
    assert browser.complaints() == []


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, folder):
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.command("Emulation.setDeviceMetricsOverride", **metrics)
    browser.open((folder / "index.html").as_uri())
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    narrowest = (
        "Math.min(...[...document.querySelectorAll('audio, select')].map((e) => e.getBoundingClientRect().width))"
    )
    assert browser.evaluate(narrowest) > 250
    assert browser.evaluate("document.querySelector('figure img').getBoundingClientRect().width") > 600
    assert browser.evaluate("document.querySelector('figure a').href") == (folder / "runtime.png").as_uri()


def test_on_a_phone_names_stay_in_view_while_a_table_scrolls(browser, folder):
    browser.command("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    browser.open((folder / "index.html").as_uri())
    scroll = """(() => {
      const box = document.querySelector('.sections .scroll');
      box.firstChild.style.width = '600px';
      box.scrollLeft = 100;
      const left = (name) => box.querySelector(name).getBoundingClientRect().left - box.getBoundingClientRect().left;
      return [box.scrollLeft, left('td'), left('tr.condition span'), getComputedStyle(box).backgroundImage];
    })()"""
    scrolled, name, condition, shadow = browser.evaluate(scroll)
    assert (scrolled, name, condition) == (100, 0, 0)
    assert shadow.count("linear-gradient") == 2


def test_a_page_without_scores_plays_and_nothing_complains(browser, tmp_path):
    browser.open((make_report(tmp_path / "results", absent=True) / "index.html").as_uri())
    assert len(browser.evaluate(LOADED)) == 6
    assert browser.evaluate("document.querySelector('.length').textContent") == "1.0 s"
    assert browser.evaluate("document.querySelector('.controls')") is None
    assert browser.complaints() == []
