"""The report in a real browser: what it loads and runs, whether it can be read, and used by keyboard."""

import re
from itertools import pairwise

import pytest

from knowrl_core.report.write import make_report, write_report
from tests.browser import chromium, needs_chromium, open_file
from tests.unit.knowrl_core.report.conftest import SCRIPT

pytestmark = [pytest.mark.slow, needs_chromium]
VIEWS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (360, "light")}


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def files(collapsed, tmp_path_factory):
    """A report of one run, and one of three: a whole one, one in progress, one that has not begun."""
    from tests.unit.knowrl_core.report.made import MadeRun

    root = tmp_path_factory.mktemp("reports")
    young = MadeRun(root, "young", settings=["rl.kl_coef=0.2"]).iteration(0, (0.5, 0.5), until="generate")
    short = MadeRun(root, "short", planned=1).iteration(0, (0.5, 0.5)).iteration(1, (0.6, 0.9))
    single, several = root / "single.html", root / "several.html"
    write_report(make_report([collapsed.paths]), single)
    write_report(make_report([collapsed.paths, short.end(), young.paths]), several)
    return {"single": single, "several": several}


@pytest.fixture
def opened(browser, files):
    """Opens a report; gives the page, and what went wrong or was asked for meanwhile."""
    contexts = []

    def open_(which, view="light", **options):
        width, scheme = VIEWS[view]
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        return open_file(context, files[which])

    yield open_
    for context in contexts:
        context.close()


OPEN = "document.querySelectorAll('section > details, #reward-truth details').forEach((item) => { item.open = true })"
"""All but the data of the other charts, which are the same tables over and over."""


@pytest.mark.parametrize(("which", "view"), [("single", "dark"), ("single", "phone"), ("several", "light")])
def test_it_can_be_read(opened, which, view):
    from axe_playwright_python.sync_playwright import Axe

    # The checker is a script of its own, which the page's policy would refuse.
    page, trouble = opened(which, view, bypass_csp=True)
    page.evaluate(OPEN)
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [
        (item["id"], item["nodes"][0]["html"][:200]) for item in found if item["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert trouble == []


@pytest.mark.parametrize("which", ["single", "several"])
def test_a_phone_need_not_scroll_sideways(opened, which):
    page, _ = opened(which, "phone")
    page.evaluate("document.querySelectorAll('details').forEach((item) => { item.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_nothing_runs_or_loads_that_is_not_its_own(opened, files):
    page, trouble = opened("single")
    page.evaluate(OPEN)
    assert page.get_by_text(SCRIPT, exact=True).count() > 0, "the task is shown as text"
    assert page.locator("script").count() == 1
    assert page.locator("img, iframe, link, object, embed").count() == 0
    assert trouble == []
    # Even what got past the escaping would not run: the policy of the page refuses it.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"x\" onerror=\"document.title = 1\">')")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 2'}))")
    page.wait_for_timeout(200)
    assert page.title() == "KnowRL: collapsed"
    text = files["single"].read_text()
    assert not re.search(r"(?:src|href)=[\"'](?!#)", text), "an address of something else"
    assert "onerror=alert" not in re.sub(r"&lt;.*?&gt;", "", text)


def test_every_chart_has_a_picture_words_and_a_table(opened):
    page, _ = opened("single")
    charts = page.locator("figure.chart")
    assert charts.count() >= 12
    for chart in charts.all():
        assert chart.locator(".plot[role=img]").get_attribute("aria-label").count("iteration") > 0
        assert chart.locator("svg.area").bounding_box()["width"] > 100
        assert chart.locator("svg.area .line:not([class*=' r-']), svg.area .bar, svg.area use").count() > 0
        assert chart.locator("table tbody tr").count() == 5
    first = page.locator("#reward-truth")
    assert "highest 0.850 at 2" in first.locator(".plot").get_attribute("aria-label")
    assert first.locator("svg.area .letter").all_text_contents() == ["best", "G", "GS"]


def test_headings_go_down_one_at_a_time_and_landmarks_are_there(opened):
    for which in ("single", "several"):
        page, _ = opened(which)
        levels = [
            int(name[1]) for name in page.locator("h1, h2, h3, h4, h5").evaluate_all("all => all.map(e => e.tagName)")
        ]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.locator("main, header, footer, nav").count() == 4
        ids = page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
        assert len(ids) == len(set(ids))
        for target in page.locator("a[href^='#']").evaluate_all("all => all.map(e => e.getAttribute('href').slice(1))"):
            assert target in ids


def test_it_can_be_used_by_keyboard(opened):
    page, _ = opened("single")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reader = page.locator("#reward-truth .probe")
    reader.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert reader.get_attribute("aria-valuetext").startswith(
        "Iteration 1: Balanced accuracy on the probe (truth) 0.650"
    )
    assert page.locator(".tip").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".tip").count() == 0
    summary = page.locator("#reward-truth summary")
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("#reward-truth table").is_visible()


def test_it_prints_in_light_without_what_only_a_screen_has(opened):
    page, _ = opened("single", "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.locator("#reward-truth svg.area").is_visible()
    assert page.pdf()[:5] == b"%PDF-"


def test_without_scripts_everything_is_there(opened):
    page, _ = opened("several", java_script_enabled=False)
    assert page.locator("figure.chart svg.area").count() > 20
    assert page.locator("#all-set-probe summary").is_visible()
