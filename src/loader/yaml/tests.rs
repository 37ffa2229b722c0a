use super::*;
use crate::loader::tests::processor_time;

fn read_all(text: &str) -> (String, Vec<String>) {
    let file = File::new("t.yaml", std::path::PathBuf::new(), text);
    let report = Report::default();
    let documents = parse(&file, text, None, &report);
    let json: Vec<String> = documents
        .iter()
        .map(|node| node.to_json().to_string())
        .collect();
    let faults = report
        .finish(&[])
        .into_iter()
        .map(|fault| {
            let place = fault
                .place
                .map(|place| format!("{}:{}:{} ", place.line, place.column, place.width));
            place.unwrap_or_default() + &fault.message
        })
        .collect();
    (json.join(" "), faults)
}

#[test]
fn documents_become_json() {
    let check = |text: &str, expected: &str| {
        assert_eq!(read_all(text), (expected.to_owned(), vec![]), "{text:?}");
    };
    check("", "");
    check("---\n---\n# nothing\n---\na: 1\n...\n---\n", r#"{"a":1}"#);
    check(
        "a: 1\n---\nb: [x, 'y', \"z\\n\"]\n",
        r#"{"a":1} {"b":["x","y","z\n"]}"#,
    );
    check("yes: no\n1: 2\n1.5: x", r#"{"true":false,"1":2,"1.5":"x"}"#);
    check(
        "a: !!str 12\nb: !!int \"3\"\nc: !x 1",
        r#"{"a":"12","b":3,"c":"1"}"#,
    );
    check("a: !!binary aGVsbG8=", r#"{"a":"hello"}"#);
    check(
        "a: \"it\\'s\"\nb: 'it\\'\nc: it\\'s",
        r#"{"a":"it's","b":"it\\","c":"it\\'s"}"#,
    );
    // An escaped backslash before a quote is one, too.
    check(
        "a: \"1 \\\\'2\\\\\\'\"\nb: 'x\\\\'\nc: |\n  \\' \\\\'\n",
        r#"{"a":"1 \\'2\\'","b":"x\\\\","c":"\\' \\\\'\n"}"#,
    );
    check(
        "a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  b: 2\ne: {<<: [*x, {b: 3, f: 4}]}",
        r#"{"a":{"b":1},"c":{"b":1},"d":{"b":2},"e":{"b":1,"f":4}}"#,
    );
    check(
        "{\t\"a\": \"\\ud83d\\ude00\\/\"}\n[1, 2.5, true, null, -3e2]",
        r#"{"a":"😀/"} [1,2.5,true,null,-300.0]"#,
    );
    check("{a: 1, b: [c]}", r#"{"a":1,"b":["c"]}"#);
    check(
        "a: {\n  b: c\n}\nd: [\n  1\n]\n",
        r#"{"a":{"b":"c"},"d":[1]}"#,
    );
    check(
        "a: |\n  x\n   y\nb: >-\n  x\n  y\n",
        r#"{"a":"x\n y\n","b":"x y"}"#,
    );
    check(
        "a:\n- b\n- c: d\n  e: f",
        r#"{"a":["b",{"c":"d","e":"f"}]}"#,
    );
    check("a: \r\n  b: c\r\n", r#"{"a":{"b":"c"}}"#);
    check("a: b #c\n\n#\td\n", r#"{"a":"b"}"#);
    check(
        "command: [\"sh\",\n  \"-c\",\n \"x\"]\n",
        r#"{"command":["sh","-c","x"]}"#,
    );
}

/// libyaml and go-yaml do not look at how far lines of `[ … ]`, `{ … }` and quoted text are indented, and people write so.
#[test]
fn brackets_and_quoted_text_may_be_indented_as_one_likes() {
    let check = |text: &str, expected: &str| {
        assert_eq!(read_all(text), (expected.to_owned(), vec![]), "{text:?}");
    };
    check(
        "- exec:\n    command: [\n      \"sh\", # or bash\n      \"-c\"\n    ]\n  x: 1\n",
        r#"[{"exec":{"command":["sh","-c"]},"x":1}]"#,
    );
    check(
        "a:\n  b:\n    c: {\n      d: [\n        {e: f}\n      ]\n  }\ng: 1\n",
        r#"{"a":{"b":{"c":{"d":[{"e":"f"}]}}},"g":1}"#,
    );
    check(
        "a:\n  b: [\nx,\n\"y\"\n]\n  c: d\n",
        r#"{"a":{"b":["x","y"],"c":"d"}}"#,
    );
    check(
        "a:\n- b: \"some\ntext\n  here\"\n  c: 'x\n\n y'\n",
        r#"{"a":[{"b":"some text here","c":"x\ny"}]}"#,
    );
    check(
        "a: [x,\tz]\n\t# a comment\nb: c\n",
        r#"{"a":["x","z"],"b":"c"}"#,
    );
}

#[test]
fn templates_are_known_by_their_braces() {
    let hints = |text: &str| {
        let file = File::new("t.yaml", std::path::PathBuf::new(), text);
        let report = Report::default();
        parse(&file, text, None, &report);
        let faults = report.finish(&[]).into_iter();
        faults.map(|fault| fault.hint).collect::<Vec<_>>()
    };
    let template = || Some(TEMPLATE_HINT.to_owned());
    assert_eq!(hints("a: {{ .Values.x }}\n"), [template()]);
    assert_eq!(hints("a: 1\n{{- if .Values.x }}\nb: 2\n"), [template()]);
    assert_eq!(hints("a: b: c\n"), [None]);
    assert_eq!(hints("a: '{{ x }}'\n"), []);
}

#[test]
fn faults_have_places_and_do_not_hide_later_documents() {
    let check = |text: &str, json: &str, faults: &[&str]| {
        let faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
        assert_eq!(read_all(text), (json.to_owned(), faults), "{text:?}");
    };
    check(
        "a: 1\na: 2\n",
        r#"{"a":1}"#,
        &["2:1:1 the key `a` is already set in line 1"],
    );
    check(
        "a: [\n---\nb: 1\n---\nc: }\n---\nd: 1",
        r#"{"b":1} {"d":1}"#,
        &[
            "1:4:1 not valid YAML: unclosed bracket '['",
            "5:4:1 not valid YAML: misplaced bracket",
        ],
    );
    check(
        "? [a]\n: 1\nb: 2",
        r#"{"b":2}"#,
        &["1:3:1 a key must be a string, is a list"],
    );
    check("~: 1", "{}", &["1:1:1 a key must be a string, is null"]);
    check(
        "a: .inf",
        r#"{"a":null}"#,
        &["1:4:4 `.inf` is not a number that JSON knows; quote it to make it a string"],
    );
    check(
        "a: *b",
        "",
        &["1:4:1 not valid YAML: while parsing node, found unknown anchor"],
    );
    check(
        "a: &a [*a]",
        "",
        &["1:8:2 the alias names what contains it"],
    );
    check(
        "<<: 1",
        "{}",
        &["1:1:2 `<<` takes a mapping or a list of mappings"],
    );
    check(
        "a: b\u{0}c",
        "",
        &["1:5:1 the file has a control character, which neither YAML nor JSON allows"],
    );
}

#[test]
fn bombs_are_refused_quickly() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..40 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let (_, faults) = read_all(&laughs);
    assert_eq!(
        faults,
        ["6:10:3 the aliases of this file expand to too much"]
    );

    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..1000 {
        chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    let (_, faults) = read_all(&chain);
    assert_eq!(faults, ["99:12:4 nested deeper than 100 levels"]);

    let started = processor_time();
    for text in [
        "[".repeat(1 << 20),
        "{\"a\":".repeat(1 << 18),
        "- ".repeat(1 << 19),
        "a: ".repeat(1 << 18),
        "? ".repeat(1 << 19),
        "&a ".repeat(1 << 18),
        "!a ".repeat(1 << 18),
        "\"".repeat(1 << 20),
        "%A\n".repeat(1 << 18),
        "---\n[".repeat(1 << 15),
        "{".repeat(100) + &"a,".repeat(1 << 16),
        " ".repeat(1 << 20) + ":",
        "a:\n".repeat(1 << 18),
        "'".repeat((1 << 20) + 1),
    ] {
        let began = processor_time();
        let _documents = read_all(&text);
        let took = processor_time() - began;
        assert!(took.as_secs() < 5, "{:?} took {took:?}", text.get(..10));
    }
    assert!((processor_time() - started).as_secs() < 20);
}
