//! Paths of archives, which are bytes, and lead nowhere until they are cleaned.

/// A path without `.`, `..` and repeated slashes, relative to the root; `None` if it leaves the root.
pub(in super::super) fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut cleaned: Vec<u8> = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if cleaned.is_empty() => return None,
            b".." => {
                let parent = split(&cleaned).0.len();
                cleaned.truncate(parent);
            }
            _ => {
                if !cleaned.is_empty() {
                    cleaned.push(b'/');
                }
                cleaned.extend_from_slice(component);
            }
        }
    }
    Some(cleaned)
}

/// Where a symbolic link in the cleaned folder `parent` leads within the root; `..` stops there.
pub(in super::super) fn link_target(parent: &[u8], target: &[u8]) -> Vec<u8> {
    let mut path: Vec<&[u8]> = Vec::new();
    let from = if target.starts_with(b"/") {
        b""
    } else {
        parent
    };
    for component in from
        .split(|b| *b == b'/')
        .chain(target.split(|b| *b == b'/'))
    {
        match component {
            b"" | b"." => {}
            b".." => drop(path.pop()),
            _ => path.push(component),
        }
    }
    path.join(&b'/')
}

/// Parent and last component of a cleaned path.
pub(in super::super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_or_leaves_the_root() {
        let check = |path: &str, expected: Option<&str>| {
            let found = clean(path.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path:?}");
        };
        check("a/b", Some("a/b"));
        check("./a//b/./", Some("a/b"));
        check("/a", Some("a"));
        check("./", Some(""));
        check("/", Some(""));
        check("a/../b", Some("b"));
        check("a/b/../../c", Some("c"));
        check("a/..", Some(""));
        check("..", None);
        check("../a", None);
        check("/../a", None);
        check("a/../../b", None);
        check("...", Some("..."));
    }

    #[test]
    fn a_link_leads_within_the_root() {
        let check = |parent: &str, target: &str, expected: &str| {
            let found = link_target(parent.as_bytes(), target.as_bytes());
            assert_eq!(found, expected.as_bytes(), "{parent:?} {target:?}");
        };
        check("a/b", "c", "a/b/c");
        check("a/b", "../c", "a/c");
        check("a/b", "/c", "c");
        check("a", "../../../c", "c");
        check("", "..", "");
    }
}
