//! What a container executes: the image's entrypoint and arguments, or the manifest's. Pure.

/// Applies the rule of containerd's `WithProcessArgs`: `command` replaces the entrypoint and drops the image's
/// arguments, `args` replaces the arguments.
///
/// The result is empty if neither the image nor the manifest names a program.
#[must_use]
pub fn choose(
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    entrypoint: &[String],
    cmd: &[String],
) -> Vec<String> {
    let command = command.filter(|command| !command.is_empty());
    let args = args.filter(|args| !args.is_empty());
    // Docker's way to say that a base image's entrypoint does not count.
    let entrypoint = if entrypoint == [""] { &[] } else { entrypoint };
    let (mut program, arguments) = match (command, args) {
        (Some(command), args) => (command, args.unwrap_or_default()),
        (None, Some(args)) => (entrypoint.to_vec(), args),
        (None, None) => (entrypoint.to_vec(), cmd.to_vec()),
    };
    program.extend(arguments);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination() {
        let check = |command: Option<&str>, args: Option<&str>, expected: &str| {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
            let chosen = choose(
                command.map(words),
                args.map(words),
                &["entry".to_owned(), "e1".to_owned()],
                &["cmd".to_owned()],
            );
            assert_eq!(chosen.join(" "), expected);
        };
        check(None, None, "entry e1 cmd");
        check(Some("c c1"), None, "c c1");
        check(None, Some("a"), "entry e1 a");
        check(Some("c"), Some("a"), "c a");
        check(Some(""), Some("a"), "entry e1 a");
        check(Some(""), Some(""), "entry e1 cmd");
        let cmd = ["cmd".to_owned()];
        assert_eq!(choose(None, None, &[String::new()], &cmd), cmd);
        assert!(choose(None, None, &[String::new()], &[]).is_empty());
    }
}
