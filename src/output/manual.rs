//! kplay-fields(7): what kplay makes of every field. The pages of the commands come from the command line's definition.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::model::field::Field;

const HEAD: &str = r#".SH NAME
kplay\-fields \- what kplay makes of every field of a manifest
.SH DESCRIPTION
Fields are listed by the type that has them, with their own type. What is honoured means here what it means in a cluster.
What is ignored is noted when it is played, and what is refused is an error: nothing is dropped in silence.
.BR kplay\-explain (1)
shows one field, and
.BR kplay\-check (1)
looks through manifests.
"#;

/// The page, for the lines of the table in their order.
pub(crate) fn fields(fields: &[Field], version: &str) -> String {
    let mut page = format!(".TH KPLAY-FIELDS 7 \"\" \"kplay {version}\"\n{HEAD}");
    for of in fields.chunk_by(|one, next| one.of == next.of) {
        let name = of.first().map_or("", |field| field.of);
        push(&mut page, format_args!(".SH {name}\n"));
        for field in of {
            push_field(&mut page, field);
        }
    }
    page
}

fn push_field(page: &mut String, field: &Field) {
    let Field { name, kind, .. } = field;
    let meaning = escaped(field.meaning);
    let verdict = field.verdict();
    push(
        page,
        format_args!(".TP\n\\fB{name}\\fR \\fI{kind}\\fR\n{meaning}.\n"),
    );
    if verdict != "honoured" {
        let verdict = escaped(&verdict);
        push(page, format_args!(".br\n{verdict}.\n"));
    }
}

/// Text in which nothing is a request or an escape.
fn escaped(text: &str) -> Cow<'_, str> {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}").into(),
        false => text.into(),
    }
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    page.write_fmt(text).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::field::{Standing, When};

    #[test]
    fn types_are_sections_and_text_is_text() {
        let field = |of, name, standing, remark, meaning| Field {
            of,
            name,
            kind: "string",
            standing,
            remark,
            meaning,
            tests: "",
        };
        let page = fields(
            &[
                field("A", "a", Standing::Honoured, "", ".dot and \\ and -x"),
                field("A", "b", Standing::Noted(When::Set), "why", "Meant"),
                field("B", "c", Standing::Honoured, "but", "'Quoted'"),
            ],
            "1.0",
        );
        assert!(page.starts_with(".TH KPLAY-FIELDS 7 \"\" \"kplay 1.0\"\n.SH NAME\n"));
        let (_, sections) = page.split_once(".SH A\n").expect("a section");
        assert_eq!(
            sections,
            ".TP\n\\fBa\\fR \\fIstring\\fR\n\\&.dot and \\e and \\-x.\n\
             .TP\n\\fBb\\fR \\fIstring\\fR\nMeant.\n.br\nignored: why.\n\
             .SH B\n\
             .TP\n\\fBc\\fR \\fIstring\\fR\n\\&'Quoted'.\n.br\nhonoured: but.\n"
        );
    }
}
