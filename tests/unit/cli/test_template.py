"""Go templates: what docker 28.2 prints for the same template and document, and hostile data shown escaped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.cli.rendering import json_text, quoted, render, show, shown
from cloche.cli.template import parse
from cloche.errors import Error, Invalid

DOCUMENT: dict[str, Any] = {
    "Id": "4cd75e13c6b9",
    "Name": "/web",
    "Path": "sleep",
    "Args": ["1000", "a<b>&c"],
    "State": {"Status": "exited", "Running": False, "OOMKilled": True, "Pid": 0, "ExitCode": 137},
    "HostConfig": {"Memory": 67108864, "CapAdd": None, "Binds": ["/a:/b:ro"]},
    "Config": {"Env": ["PATH=/bin", "A=b"], "Labels": {"a": "1", "com.x/y": "zwei"}, "Entrypoint": None},
    "NetworkSettings": {"Networks": {"none": {"IPAddress": ""}}},
    "Mounts": [
        {"Type": "bind", "Source": "/a", "Destination": "/b"},
        {"Type": "tmpfs", "Source": "", "Destination": "/t"},
    ],
}

# (template, what docker 28.2 prints for DOCUMENT)
SAME_AS_DOCKER = [
    ("{{.Id}}", "4cd75e13c6b9"),
    ("{{json .Config.Labels}}", '{"a":"1","com.x/y":"zwei"}'),
    ("{{json .Args}} {{.Config.Env}}", '["1000","a<b>&c"] [PATH=/bin A=b]'),
    ("{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}", "exited 137 true"),
    ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a=1;com.x/y=zwei;"),
    ("{{range .Mounts}}{{.Source}}:{{.Destination}} {{end}}", "/a:/b :/t "),
    ("{{range .Config.Env}}{{println .}}{{end}}", "PATH=/bin\nA=b\n"),
    ("{{range $i, $e := .Config.Env}}{{$i}}{{$e}}{{end}}", "0PATH=/bin1A=b"),
    ("{{if .State.Running}}up{{else if .State.OOMKilled}}oom{{else}}down{{end}}", "oom"),
    ('{{index .Config.Labels "com.x/y"}}', "zwei"),
    ('{{index .Config.Labels "nope"}}|', "|"),
    ("{{.Config.Labels.nope}}", "<no value>"),
    ("{{.Config.Labels.a}}", "1"),
    ("{{len .Args}} {{len .Name}} {{len .Config.Labels}}", "2 4 2"),
    ("{{index .Args 0}} {{(index .Mounts 0).Source}} {{index .Name 0}}", "1000 /a 47"),
    ('{{join .Args ","}}', "1000,a<b>&c"),
    ('{{upper .Name}} {{title "hello world"}} {{.Name | lower | printf "%q"}}', '/WEB Hello World "/web"'),
    ('{{split .Name "e"}}', "[/w b]"),
    ("{{pad .Name 1 2}}|{{truncate .Name 2}}|{{truncate .Name 9}}", " /web  |/w|/web"),
    ('{{printf "%s-%d-%05d|%-6s|%6s" .Name .State.ExitCode 42 "ab" "cd"}}', "/web-137-00042|ab    |    cd"),
    ('{{printf "%v %v %t" .Args .State.Running true}}', "[1000 a<b>&c] false true"),
    ('{{printf "%d" "x"}} {{printf "%s" 5}} {{printf "%d"}}', "%!d(string=x) %!s(int=5) %!d(MISSING)"),
    ('{{printf "x" 1}} {{printf "%!"}} {{printf "%z" 3}}', "x%!(EXTRA int=1) %!!(MISSING) %!z(int=3)"),
    ('{{printf "%x %X %o %b %c %U" 255 "hi" 8 5 65 65}}', "ff 6869 10 101 A U+0041"),
    ('{{printf "%e %.2f %8.3f|%+d" 1.5 2.345 2.5 7}}', "1.500000e+00 2.35    2.500|+7"),
    ('{{printf "%q %v" "a\\nb" nil}} {{printf "%6.2f%%" 12.345}}', '"a\\nb" <nil>  12.35%'),
    (
        '{{eq .State.Status "exited"}} {{ne 1 2}} {{lt 1 2}} {{ge 2 2}} {{gt 1 2}} {{le 3 2}}',
        "true true true true false false",
    ),
    ('{{lt "a" "b"}} {{eq "a" "b" "a"}}', "true true"),
    ('{{and 1 0}} {{or 0 "x"}} {{not true}}', "0 x false"),
    ("{{if and .Name (eq .State.ExitCode 137)}}yes{{end}}", "yes"),
    ("{{with .State}}{{.Status}} {{$.Name}}{{end}}", "exited /web"),
    ("{{with .Config.Entrypoint}}yes{{else}}no{{end}}", "no"),
    ("a {{- .Name -}}  x", "a/webx"),
    ("a {{- /* c */ -}} b", "ab"),
    ("{{/* }} */}}x", "x"),
    ('{{"}}"}} {{`ra\\w`}} {{"a\\tb\\x41\\u00e9\\101"}} {{\'x\'}}', "}} ra\\w a\tbAéA 120"),
    ('{{$x := .Name}}{{$x}} {{$x = "b"}}{{$x}}', "/web b"),
    ('{{range .Config.Env}}{{if eq . "A=b"}}{{break}}{{end}}{{.}}{{end}}', "PATH=/bin"),
    ("{{range .Config.Env}}{{continue}}{{.}}{{end}}", ""),
    ("{{range 3}}{{.}}{{end}} {{range $i := 3}}{{$i}}{{end}}", "012 012"),
    ("{{slice .Name 1 3}} {{slice .Args 1}}", "we [a<b>&c]"),
    ("{{1.5}} {{1e3}} {{0x10}} {{-3}} {{1000000000000000000000.0}}", "1.5 1000 16 -3 1e+21"),
    ('{{print 1 2 "a" "b" 3}}', "1 2ab3"),
    ('{{"x" | json}} {{json 5}} {{json "a<b"}} {{json .HostConfig.CapAdd}}', '"x" 5 "a<b" null'),
    ("{{range .HostConfig.CapAdd}}{{.}}{{else}}none{{end}}", "none"),
    ("{{.Name}}\\t{{.Path}}", "/web\\tsleep"),
    ("{{range $index, $element := .Args}}{{if $index}}, {{end}}{{$element}}{{end}}", "1000, a<b>&c"),
    ("{{range $k,$v:=.NetworkSettings.Networks}}{{$k}}{{end}}", "none"),
    ("{{.Name}}{{with $v := .Path}}{{$v}}{{end}}", "/websleep"),
]


@pytest.mark.parametrize(("template", "printed"), SAME_AS_DOCKER)
def test_templates_print_what_docker_prints(template: str, printed: str) -> None:
    assert shown(template, DOCUMENT) == printed


def test_json_as_a_format() -> None:
    assert shown("json", DOCUMENT) == json.dumps(DOCUMENT, separators=(",", ":"))
    assert shown("{{json .}}", DOCUMENT) == shown("json", DOCUMENT)


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{{.Name", "unclosed action"),
        ("{{", "unclosed action"),
        ("{{ /* x", "unclosed comment"),
        ("{{/* x */ .Name}}", "comment ends before closing delimiter"),
        ('{{"abc}}', "unterminated quoted string"),
        ('{{"a\nb"}}', "unterminated quoted string"),
        ("{{.Name}", "unclosed action"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if}}x{{end}}", "missing value for if"),
        ("{{if .Name}}x", "unexpected EOF, expected {{end}}"),
        ("{{if .Name}}x{{else}}y{{else}}z{{end}}", "unexpected {{else}}, expected {{end}}"),
        ("{{if .Name}}x{{else range .X}}z{{end}}", "unexpected 'range' in else"),
        ("{{}}", "missing value for command"),
        ("{{.Name | }}", "missing value for command"),
        ("{{$y}}", "undefined variable '$y'"),
        ("{{$y = 1}}", "undefined variable '$y'"),
        ("{{if $x := 1}}{{end}}{{$x}}", "undefined variable '$x'"),
        ("{{foo .Name}}", 'function "foo" not defined'),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{continue}}", "{{continue}} outside {{range}}"),
        ("{{define}}", "{{define}} is not there yet"),
        ('{{template "x"}}', "{{template}} is not there yet"),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{.Name)}}", "unexpected ')' in command"),
        ('{{"x" | 3}}', "non executable command in pipeline"),
        ('{{"a""b"}}', "in operand"),
        ("{{upper.Name}}", "unexpected '.Name' after 'upper'"),
        ("{{1x}}", "bad number syntax: '1x'"),
        ("{{'ab'}}", "malformed character constant"),
        ('{{"\\q"}}', "bad escape in string"),
        ('{{"\\ud800"}}', "bad escape in string"),
        ("{{.Name @}}", "unexpected '@' in action"),
        ("{{" + "(" * 60 + ")" * 60 + "}}", "nested too deeply"),
        ("{{if 1}}" * 60 + "{{end}}" * 60, "nested too deeply"),
        ("{{" + "(" * 5000, "unclosed action"),
    ],
)
def test_what_cannot_be_read(template: str, cause: str) -> None:
    with pytest.raises(Invalid, match=r"^template parsing error: ") as caught:
        shown(template, DOCUMENT)
    assert cause in str(caught.value)
    assert caught.value.exit_code == 64


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{{.Foo}}", 'map has no entry for key "Foo"'),
        ("{{.State.Foo}}", 'map has no entry for key "Foo"'),
        ("{{.Name.Foo}}", "can't evaluate field Foo in type string"),
        ("{{.Config.Entrypoint.Foo}}", "nil pointer evaluating interface {}.Foo"),
        ("{{range .Name}}x{{end}}", "range can't iterate over /web"),
        ("{{index .Args 5}}", "index out of range: 5"),
        ("{{index .Args -1}}", "index out of range: -1"),
        ("{{index .HostConfig.CapAdd 0}}", "index of untyped nil"),
        ("{{index .State.ExitCode 0}}", "index of type int"),
        ("{{len 3}}", "len of type int"),
        ("{{upper 3}}", "wrong type of value for upper; expected string; got int"),
        ('{{join .Name ","}}', "wrong type of value for join"),
        ("{{truncate .Name .Name}}", "wrong type of value for truncate; expected int; got string"),
        ('{{eq "a" 1}}', "incompatible types for comparison"),
        ("{{lt true false}}", "incompatible types for comparison"),
        ("{{eq .Args .Args}}", "non-comparable type"),
        ("{{and}}", "wrong number of args for and"),
        ("{{upper}}", "wrong number of args for upper: want 1 got 0"),
        ('{{.Name "x"}}', "Name has arguments but cannot be invoked as function"),
        ("{{.Name | .Path}}", "Path has arguments but cannot be invoked as function"),
        ("{{1 2}}", "can't give argument to non-function"),
        ("{{nil}}", "nil is not a command"),
        ("{{slice .Name 3 1}}", "index out of range"),
    ],
)
def test_what_cannot_be_done(template: str, cause: str) -> None:
    with pytest.raises(Invalid, match=r"^template parsing error: ") as caught:
        shown(template, DOCUMENT)
    assert cause in str(caught.value)
    assert caught.value.exit_code == 1


def test_break_in_the_else_of_a_loop_ends_the_loop_around_it() -> None:
    assert (
        shown("{{range .Args}}{{.}}{{range $.Config.Entrypoint}}x{{else}}{{break}}{{end}}y{{end}}z", DOCUMENT)
        == "1000z"
    )


def test_variables_of_a_loop_end_with_it() -> None:
    assert shown("{{$n := 0}}{{range .Args}}{{$n = len .}}{{end}}{{$n}}", DOCUMENT) == "6"
    assert shown("{{$v := 1}}{{range $v := .Args}}{{end}}{{$v}}", DOCUMENT) == "1"


def test_methods() -> None:
    row = {"Label": lambda name: {"a": "1"}.get(name, ""), "ID": "x"}
    assert shown('{{.Label "a"}}{{.Label "b"}}{{"a" | .Label}}', row) == "11"
    assert shown("json", row) == '{"ID":"x"}'
    with pytest.raises(Invalid, match="wrong arguments for Label"):
        shown("{{.Label}}", row)


HOSTILE = "a\x1b[31m\r\n\t\x07\u202eb\x7f\x9b"


@pytest.mark.parametrize(
    "template",
    [
        "{{.X}}",
        "{{.L}}",
        "{{.M}}",
        "{{json .X}}",
        "{{json .}}",
        "{{upper .X}}",
        "{{title .X}}",
        "{{truncate .X 6}}",
        "{{pad .X 1 1}}",
        '{{split .X "b"}}',
        '{{join .L " "}}',
        "{{join .L .X}}",
        "{{print .X}}",
        '{{printf "%s %v %q %10s %.5s" .X .X .X .X .X}}',
        "{{printf .X}}",
        '{{printf "%d" .X}}',
        '{{printf "x" .X}}',
        '{{printf "%c" 27}}',
        "{{slice .X 0 4}}",
        "{{range $k, $v := .M}}{{$k}}{{$v}}{{end}}",
        "{{with $x := .X}}{{$x}}{{end}}",
        '{{or .X "y"}}',
        "{{range .L}}{{.}}{{end}}",
    ],
)
def test_hostile_data_is_shown_escaped(template: str) -> None:
    text = shown(template, {"X": HOSTILE, "L": [HOSTILE, HOSTILE], "M": {HOSTILE: HOSTILE}})
    assert text.isprintable()


def test_text_of_the_template_is_shown_as_it_is() -> None:
    assert shown('\x1b[1m{{.X}}{{"\\n"}}{{join .L "\\n"}}{{println .X}}', {"X": "a\nb", "L": ["c", "d"]}) == (
        "\x1b[1ma\\nb\nc\nda\\nb\n"
    )
    assert render(parse("a\\tb\\n", escapes=True), {}) == "a\tb\n"
    assert render(parse("a\\tb\\n"), {}) == "a\\tb\\n"


def test_escaped_data_is_not_escaped_twice() -> None:
    assert shown('{{printf "%s" .X | upper}}', {"X": "a\nb"}) == "A\\NB"
    assert shown('{{eq .X "a\\nb"}}', {"X": "a\nb"}) == "true"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "<nil>"),
        (True, "true"),
        (7, "7"),
        (1e21, "1e+21"),
        (1.25, "1.25"),
        (1e-7, "1e-07"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
        ([1, [None, "x"]], "[1 [<nil> x]]"),
        ({"b": 1, "a": [2]}, "map[a:[2] b:1]"),
        ({}, "map[]"),
    ],
)
def test_values_as_go_prints_them(value: object, text: str) -> None:
    assert show(value) == text


def test_json_text() -> None:
    assert json_text({"a": "\u202e\x9b\ud800é😀"}) == '{"a":"\\u202e\\u009b\\ud800é😀"}'
    assert json_text({"a": [1]}, indent=4) == '{\n    "a": [\n        1\n    ]\n}'
    assert json.loads(json_text({"a": HOSTILE})) == {"a": HOSTILE}
    assert json.loads(json_text({"\U000e0001": "\n"}, indent=2)) == {"\U000e0001": "\n"}


def test_go_quoting() -> None:
    assert quoted('a"b\\\n\x00é') == '"a\\"b\\\\\\n\\x00é"'


PIECES = st.lists(
    st.sampled_from(
        "{{ }} {{- -}} . .Name .Args $x $ := = | ( ) , if else end range with break index len json printf eq and or "
        '"a" `b` \'c\' 1 2.5 -1 nil true /* */ upper join .State.Foo \\n %s "%d%s" x'.split(" ")
    ),
    max_size=14,
)


@settings(max_examples=1500, deadline=None)
@given(
    st.one_of(
        PIECES.map(" ".join), PIECES.map("".join), PIECES.map(lambda words: "{{" + " ".join(words) + "}}"), st.text()
    )
)
def test_whatever_is_typed_only_errors_of_ours_are_raised(template: str) -> None:
    try:
        shown(template, DOCUMENT)
    except Error as error:
        assert str(error).isprintable() and error.exit_code in (1, 64)


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters()))
def test_whatever_the_data_is_it_is_shown_on_one_line(text: str) -> None:
    data = {"X": text, "Labels": {text: text}}
    for template in ("{{.X}}", "{{json .}}", "{{.Labels}}", '{{printf "%q" .X}}', "{{upper .X}}"):
        assert shown(template, data).isprintable()
