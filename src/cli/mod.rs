//! What a person types.

mod internal;

use crate::toolbox;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os();
    // In the embedded image this binary has another name.
    if arguments
        .next()
        .is_some_and(|argv0| toolbox::is_named_by(&argv0))
    {
        return toolbox::main(arguments);
    }
    if let Some(code) = internal::run() {
        return code;
    }
    std::process::ExitCode::SUCCESS
}
