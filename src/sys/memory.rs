//! Memory that is held and not needed.

use std::io;

/// Gives back what this process does not need at rest: freed heap, and the pages of its program, which the kernel maps
/// again, from its cache, when they are run. To be called by a process that will be idle for a while.
///
/// # Errors
/// `/proc` is not there, or the kernel refuses.
pub fn release() -> io::Result<()> {
    // SAFETY: only gives freed memory back.
    unsafe { libc::malloc_trim(0) };
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    for mapping in clean_file_mappings(&maps) {
        let address = std::ptr::without_provenance_mut(mapping.start);
        // SAFETY: a read-only mapping of a file without a page of its own has the same content after the kernel has
        // read it again.
        let result =
            unsafe { libc::madvise(address, mapping.end - mapping.start, libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The mappings of files that are not writable and have no page that differs from the file: what was written before it
/// was made read-only would be lost.
fn clean_file_mappings(smaps: &str) -> Vec<std::ops::Range<usize>> {
    let mut clean = Vec::new();
    let mut current: Option<std::ops::Range<usize>> = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else {
            continue;
        };
        if !first.ends_with(':') {
            let is_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
            let is_read_only = second.starts_with('r') && !second.contains('w');
            current = range(first).filter(|_| is_file && is_read_only);
        } else if first == "Anonymous:"
            && let Some(mapping) = current.take()
            && second == "0"
        {
            clean.push(mapping);
        }
    }
    clean
}

fn range(text: &str) -> Option<std::ops::Range<usize>> {
    let (start, end) = text.split_once('-')?;
    let parse = |text| usize::from_str_radix(text, 16).ok();
    Some(parse(start)?..parse(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_files_are_given_back() {
        let mapping = |head: &str, anonymous: u32| {
            format!("{head}\nRss: 4 kB\nAnonymous: {anonymous} kB\nVmFlags: rd mr\n")
        };
        let smaps = [
            mapping("00400000-00500000 r-xp 00000000 fe:00 7  /bin/kplay", 0),
            mapping("00500000-00600000 r--p 00100000 fe:00 7  /bin/kplay", 12),
            mapping("00600000-00700000 rw-p 00200000 fe:00 7  /bin/kplay", 0),
            mapping("00700000-00800000 r--p 00000000 00:00 0", 0),
            mapping("00800000-00900000 r--p 00200000 fe:00 7  /bin/kplay", 0),
        ];
        let ranges = clean_file_mappings(&smaps.concat());
        assert_eq!(ranges, [0x40_0000..0x50_0000, 0x80_0000..0x90_0000]);
    }

    #[test]
    fn the_process_goes_on() {
        release().unwrap();
        assert_eq!("still here".len(), 10);
    }
}
