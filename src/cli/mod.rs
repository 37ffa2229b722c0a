//! What a person types.

mod internal;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> std::process::ExitCode {
    if let Some(code) = internal::run() {
        return code;
    }
    std::process::ExitCode::SUCCESS
}
