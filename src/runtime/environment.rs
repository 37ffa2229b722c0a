//! The two variables that every process gets. libcontainer would look HOME up through the C library, which loads code
//! from the image to do so; and it takes a missing PATH for an error.

use std::path::Path;

use oci_spec::runtime::Process;

use super::{Error, user};

/// What containerd and Docker set where the image does not.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Adds PATH and HOME where they are missing or, for HOME, empty.
///
/// # Errors
/// The image's user file cannot be read.
pub(super) fn complete(process: &mut Process, rootfs: Option<&Path>) -> Result<(), Error> {
    let mut env = process.env().clone().unwrap_or_default();
    if value(&env, "PATH").is_none() {
        env.push(PATH.to_owned());
    }
    if value(&env, "HOME").is_none_or(str::is_empty) {
        let home = match rootfs {
            Some(rootfs) => user::lookup_uid(rootfs, process.user().uid())?.home,
            None => "/".to_owned(),
        };
        env.retain(|pair| !pair.starts_with("HOME="));
        env.push(format!("HOME={home}"));
    }
    process.set_env(Some(env));
    Ok(())
}

/// The value of a variable; the last definition counts.
pub(super) fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter()
        .rev()
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Process;

    use super::complete;

    #[test]
    fn what_is_missing() {
        let check = |env: &[&str], expected: &[&str]| {
            let mut process = Process::default();
            process.set_env(Some(env.iter().map(|s| (*s).to_owned()).collect()));
            complete(&mut process, None).unwrap();
            assert_eq!(process.env().as_deref().unwrap(), expected);
        };
        check(&[], &[super::PATH, "HOME=/"]);
        check(&["PATH=", "HOME=/x"], &["PATH=", "HOME=/x"]);
        check(
            &["HOME=", "PATHS=1", "PATH=/bin"],
            &["PATHS=1", "PATH=/bin", "HOME=/"],
        );
    }
}
