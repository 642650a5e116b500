import pytest

from knowrl_core.config.system import PromptsConfig
from knowrl_core.errors import InputError
from knowrl_core.prompts import VIEWS, check_views, load_prompts, verdict_variables

NAMES = ("introspect_feasible", "introspect_infeasible", "verdict_constrained", "verdict_free")


@pytest.fixture(scope="module")
def prompts():
    return load_prompts(PromptsConfig())


def test_builtin_templates_are_found_and_distinct(prompts):
    assert [getattr(prompts, name).name for name in NAMES] == list(NAMES)
    assert len({getattr(prompts, name).sha256 for name in NAMES}) == 4
    assert prompts.introspection("feasible") is prompts.introspect_feasible
    assert prompts.introspection("infeasible") is prompts.introspect_infeasible
    assert prompts.verdict("free") is prompts.verdict_free
    assert prompts.verdict("constrained") is prompts.verdict_constrained


def test_introspection_ends_inside_the_list(prompts):
    for label in ("feasible", "infeasible"):
        turns = prompts.introspection(label).render(shots=("One.", "Two."), count=5, next_number=3)
        assert turns[-1].role == "assistant"
        assert turns[-1].content.endswith("1. One.\n2. Two.\n3.")


@pytest.mark.parametrize("mode", ["constrained", "free"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=str)
def test_every_view_names_both_labels_in_its_order(prompts, mode, view):
    turns = prompts.verdict(mode).render(**verdict_variables("Sing a song.", view))
    users = [turn.content for turn in turns if turn.role == "user"]
    assert "Task: Sing a song." in users[-1]
    assert view.question in users[-1]
    assert users[0].startswith(view.first)
    assert turns[-1].role == "assistant"


def test_views_differ_from_each_other(prompts):
    rendered = {prompts.verdict_constrained.render(**verdict_variables("Sing.", view)) for view in VIEWS.values()}
    assert len(rendered) == len(VIEWS)
    assert {"feasible_first", "infeasible_first"} < set(VIEWS)
    assert len(VIEWS) >= 6


def test_check_views():
    assert [view.name for view in check_views(("infeasible_first", "feasible_first"))] == [
        "infeasible_first",
        "feasible_first",
    ]
    for names, words in ((("nope",), "'nope'"), ((), "no view"), (("feasible_first",) * 2, "twice")):
        with pytest.raises(InputError) as caught:
            check_views(names)
        assert words in str(caught.value)
        assert "infeasible_first" in str(caught.value)


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("[[user]]\n{{ task }} {{ first }}?\n", encoding="utf-8")
    prompts = load_prompts(PromptsConfig(verdict_constrained=str(path)))
    assert prompts.verdict_constrained.source == str(path)
    assert prompts.verdict_constrained.render(**verdict_variables("Sing.", VIEWS["infeasible_first"]))[0].content == (
        "Sing. infeasible?"
    )


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        (None, "verdict_free", "no such file"),
        ("[[user]]\nhello", "verdict_free", "'task' is not used"),
        ("[[user]]\n{{ task }} {{ intended }}", "verdict_free", "unknown variable 'intended'"),
        ("[[user]]\nhello", "introspect_feasible", "'shots' is not used"),
        ("[[user]]\n{{ task }}", "introspect_feasible", "unknown variable 'task'"),
        ("[[user]]\n{{ task.colour }}", "verdict_free", "colour"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, field, words):
    path = tmp_path / "mine.jinja"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_prompts(PromptsConfig(**{field: str(path)}))
    assert words in str(caught.value)
    assert "mine.jinja" in str(caught.value)


def test_a_folder_is_no_template(tmp_path):
    with pytest.raises(InputError, match="a folder"):
        load_prompts(PromptsConfig(verdict_free=str(tmp_path)))
