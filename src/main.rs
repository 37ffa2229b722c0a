//! The `kplay` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kplay::cli::main()
}
