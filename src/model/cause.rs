//! Errors with their causes.

use std::error::Error;

/// An error and its causes, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the file")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_their_error() {
        let inner = std::io::Error::other("the disk is wet");
        assert_eq!(
            chain(&Outer(inner)),
            "cannot read the file: the disk is wet"
        );
        assert_eq!(chain(&std::fmt::Error), std::fmt::Error.to_string());
    }
}
