"""The playground in Chromium: what a user sees and does. Nothing is asked of another machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from experiments.generate import png_metadata

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("default"),
]
SECONDS = 120
"""Patience for anything on the page, on a busy machine."""


class Server:
    """A playground in a process of its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "experiments", "play", "--port", "0", "--out", str(folder)]
        self.folder = folder
        self.process = subprocess.Popen(
            [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, (line, self.process.stderr and self.process.stderr.read())
        self.url = found[0]

    def status(self, path: str, **headers: str) -> int:
        """The HTTP status of a request."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def stop(self) -> str:
        """End it as Ctrl-C does; its error stream."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=SECONDS)
        return said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("play"))
    yield made
    said = made.stop()
    forged = len(re.findall(r"InvalidPathError: Cannot move |: wanted an uploaded file, got", said))
    assert made.process.returncode == 0 and said.count("Traceback") == forged, said
    assert list(made.folder.iterdir()) == [], "the temporary files are removed"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(server: Server, browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page of a server for a user; afterwards no request has gone elsewhere."""
    asked: list[str] = []
    wrong: list[str] = []
    users = []

    def page(at: Server = server, tab: str = "Image") -> Any:
        user = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        users.append(user)
        shown = user.new_page()
        shown.set_default_timeout(1000 * SECONDS)
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.goto(at.url)
        shown.get_by_role("tab", name=tab).click()
        return shown

    yield page
    for user in users:
        user.close()
    assert asked and wrong == []
    local = r"http://127\.0\.0\.1:\d+/|data:|blob:http://127\.0\.0\.1:"
    assert [url for url in asked if not re.match(local, url)] == []


def sampled(page: Any, prompt: str, seed: int) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Seed").first.fill(str(seed))
    page.locator("#image-sample").click()


def finished(page: Any, side: str = "on") -> None:
    page.get_by_text(f"the image, guidance {side}").wait_for()


def downloaded(page: Any, button: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button, exact=True).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_x0_hat_is_seen_while_it_samples_and_the_download_repeats(
    opened: Callable[..., Any], tmp_path: Path
) -> None:
    page = opened()
    page.get_by_label("Guidance on and off").check()
    page.get_by_label("Steps").first.fill("80")  # long enough for a browser on a busy machine
    sampled(page, "a large green ring", 5)
    caption, steps = page.locator("#image-on figcaption"), set()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and not any("image" in one for one in steps):
        steps.add(caption.inner_text() if caption.count() else "")
    previews = {one for one in steps if one.startswith("E[x0 | x_t] at step ")}
    assert len(previews) >= 3, steps
    finished(page, "off")
    on = downloaded(page, "Download PNG", tmp_path)
    off = downloaded(page, "Download PNG, guidance off", tmp_path / "off")
    for path, guided in ((on, True), (off, False)):
        kept = png_metadata.checked(png_metadata.read(path))
        assert kept.call.do_cfg is guided and kept.batch == (("a large green ring", 5),)
    assert main(["generate", "--like", str(on), "--out", str(tmp_path / "again")]) == 0
    again = np.asarray(Image.open(tmp_path / "again" / on.name), dtype=np.int16)
    assert np.abs(again - np.asarray(Image.open(on))).max() <= 1  # another number of threads


def test_two_users_at_once_have_their_own_images(
    opened: Callable[..., Any], tmp_path: Path
) -> None:
    pages = {"a red star": opened(), "a blue cross": opened()}
    for seed, (prompt, page) in enumerate(pages.items()):
        sampled(page, prompt, seed)
    for page in pages.values():
        finished(page)
    for seed, (prompt, page) in enumerate(pages.items()):
        path = downloaded(page, "Download PNG", tmp_path / prompt)
        kept = png_metadata.checked(png_metadata.read(path))
        assert kept.batch == ((prompt, seed),)
        out = tmp_path / prompt / "again"
        assert main(["generate", "--like", str(path), "--out", str(out)]) == 0
        again = np.asarray(Image.open(out / path.name), dtype=np.int16)
        assert np.abs(again - np.asarray(Image.open(path))).max() <= 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_stop_ends_the_work(opened: Callable[..., Any], server: Server) -> None:
    """The server computes no more: its processor time stands still."""

    def seconds() -> float:
        stat = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    page = opened()
    page.get_by_label("Guidance on and off").check()
    page.get_by_label("Steps").first.fill("200")
    sampled(page, "a red circle", 0)
    page.locator("#image-on").get_by_text("E[x0 | x_t] at step").wait_for()
    page.get_by_role("button", name="Stop").first.click()
    time.sleep(3)
    before = seconds()
    time.sleep(3)
    assert seconds() - before < 0.5
    assert not page.get_by_text("the image, guidance").first.is_visible()


def test_it_starts_from_an_upload_and_from_its_own_image(
    opened: Callable[..., Any], tmp_path: Path
) -> None:
    page = opened()
    page.get_by_label("Steps").first.fill("4")
    sampled(page, "a red circle", 0)
    finished(page)
    page.get_by_role("button", name="Start from this image").click()
    page.get_by_role("button", name="Start from an image").click()
    page.get_by_text("starts from 00-a-red-circle-seed0.png").wait_for()
    page.get_by_label("Strength").fill("0.5")
    page.get_by_label("Steps").first.fill("80")
    sampled(page, "a blue circle", 0)
    page.locator("#image-on").get_by_text("E[x0 | x_t] at step").wait_for()
    finished(page)
    kept = png_metadata.checked(png_metadata.read(downloaded(page, "Download PNG", tmp_path)))
    assert kept.call.strength == 0.5 and kept.image is not None


def test_bad_values_and_uploads_are_messages(opened: Callable[..., Any], tmp_path: Path) -> None:
    page = opened()
    said = page.locator("#image-message")
    cases = {
        "Guidance scale w": ("-1", "guidance scale: wanted a number from 0 to 100, got -1"),
        "Steps (1 to 200)": ("2.5", "steps: wanted a whole number from 1 to 200, got 2.5"),
        "Prompt": (" ", "prompt: wanted text of at least one word"),
    }
    for label, (value, message) in cases.items():
        field = page.get_by_label(label, exact=True).first
        usual = field.input_value()
        field.fill(value)
        page.locator("#image-sample").click()
        said.get_by_text(message).wait_for()
        field.fill(usual)
    page.get_by_label("Prompt", exact=True).fill("a red wumpus")
    page.get_by_label("Steps").first.fill("2")
    page.locator("#image-sample").click()
    said.get_by_text("does not know wumpus").wait_for()
    finished(page)
    page.get_by_role("button", name="Start from an image").click()
    (tmp_path / "words.png").write_text("no image", encoding="utf-8")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "words.png")
    page.get_by_text("image is no image in a format of PNG").wait_for()
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(9 * 2**20))
    page.locator("[aria-label='Clear'], [aria-label='Remove this file']").first.click()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "large.png")
    page.get_by_text(re.compile("exceed|too large|Maximum", re.I)).first.wait_for(timeout=15_000)


def test_the_plane_is_animated_with_its_error(opened: Callable[..., Any]) -> None:
    page = opened(tab="Plane")
    page.locator("#plane-sample").click()
    page.locator("#plane-animation img[src^='data:image/gif']").wait_for()
    error = page.locator("#plane-animation figcaption").inner_text()
    assert re.match(r"error of dpmpp_2m after 10 steps: 0\.0\d+ ", error)
    page.get_by_label("Guidance scale w").last.fill("3")
    page.locator("#plane-sample").click()
    message = "guidance scale: has no effect without a condition"
    page.locator("#plane-message").get_by_text(message).wait_for()
    page.get_by_label("Guidance scale w").last.fill("1")
    page.get_by_label("Langevin", exact=True).check()
    page.get_by_label("Step size").wait_for()
    page.locator("#plane-sample").click()
    page.get_by_text("squared energy distance from the exact flow's").wait_for()


def test_a_sampler_is_checked_and_pasted_code_is_off(opened: Callable[..., Any]) -> None:
    page = opened(tab="Check")
    page.get_by_text("Pasted code is off").wait_for()
    assert "--run-pasted-code" in page.locator("#check-pasted").inner_text()
    assert page.locator("#check-code").is_disabled()
    page.locator("#check-sampler").click()
    page.locator("#check-plot img").wait_for()
    assert page.locator("#check-table tr").count() == 11
    assert page.locator("#check-message").inner_text() == "10 checks, no defect"


def test_pasted_code_runs_with_the_flag(opened: Callable[..., Any], tmp_path: Path) -> None:
    own = Server(tmp_path / "play", "--run-pasted-code")
    try:
        page = opened(own, "Check")
        page.get_by_text("Pasted code is on").wait_for()
        page.locator("#check-code").click()
        page.locator("#check-table tr").first.wait_for()
        assert "my DDIM" not in page.locator("#check-message").inner_text()
        assert page.locator("#check-message").inner_text().endswith("checks, no defect")
    finally:
        assert own.stop() == ""


def test_no_file_outside_its_folder_is_served(server: Server, tmp_path: Path) -> None:
    assert server.status("/") == 200
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    readme = Path(__file__).resolve().parents[3] / "README.md"
    for path in (secret, readme, Path("/etc/passwd")):
        for way in ("/gradio_api/file=", "/file=", "/gradio_api/file=../../.."):
            assert server.status(f"{way}{path}") in (403, 404), (way, path)
    assert server.status("/", Host="attacker.example") == 403
    assert server.status("/", Origin="http://attacker.example") == 403


def test_a_forged_upload_names_no_file_of_the_machine(server: Server, tmp_path: Path) -> None:
    """The data of an upload hold a path; only one that was uploaded is taken."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    with urllib.request.urlopen(f"{server.url}/config", timeout=SECONDS) as answer:
        config = json.load(answer)
    (change,) = (
        one
        for one in config["dependencies"]
        if [target[1] for target in one["targets"]] == ["change"]
        and len(one["inputs"]) == len(one["outputs"]) == 1
    )
    for path in (str(secret), "http://example.com/x.png", "../../secret.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        given = {"data": [file], "fn_index": change["id"], "session_hash": "s", "event_data": None}
        body = json.dumps(given).encode()
        head = {"Content-Type": "application/json"}
        join = urllib.request.Request(f"{server.url}/gradio_api/queue/join", body, head)
        with urllib.request.urlopen(join, timeout=SECONDS):
            pass
        stream = f"{server.url}/gradio_api/queue/data?session_hash=s"
        with urllib.request.urlopen(stream, timeout=SECONDS) as events:
            for line in events:
                if b"process_completed" in line:
                    done = json.loads(line.decode().removeprefix("data: "))
                    break
        assert done["success"] is False, done
        assert "data:image" not in json.dumps(done)


@pytest.mark.parametrize(("megabytes", "status"), [(1, 200), (9, 413)])
def test_a_large_upload_is_refused_by_the_server_too(
    megabytes: int, status: int, server: Server
) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = head + bytes(megabytes * 2**20) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{server.url}/gradio_api/upload", body, kind)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            found = answer.status
    except urllib.error.HTTPError as error:
        found = error.code
    assert found == status
