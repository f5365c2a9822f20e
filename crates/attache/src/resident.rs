//! Releases the pages of the program's file that only its start needed.
//!
//! Reading the config, the certificates and the command line touches two thirds of the code that is resident in an idle process, and the
//! kernel maps sixteen pages around each page that is touched. They count for the process (`Pss`) until the system is short of memory. If
//! released pages are used again, they come from the page cache, sixteen at once, without a read from the disk.
#![expect(
    unsafe_code,
    reason = "advice about mapped pages is unsafe, because some advice discards what was written"
)]

use std::{ffi::c_void, fs, io, ptr::with_exposed_provenance_mut};

use rustix::mm::{Advice, madvise};

/// Releases every page of the program's file to which nothing was ever written.
///
/// It takes a few milliseconds, and causes a few hundred minor faults afterwards.
///
/// # Errors
/// `/proc` can't be read.
pub(crate) fn release_start_pages() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    let Some(program) = program.to_str() else { return Ok(()) };
    for range in clean(&fs::read_to_string("/proc/self/smaps")?, program) {
        let start: *mut c_void = with_exposed_provenance_mut(range.start);
        // SAFETY: the range is a mapping of the program's file that is private and not writable, and no page of it is anonymous. So each
        // page has the contents of the file, and after `MADV_DONTNEED` the next access maps it again. Nothing can be written to the range
        // between the check and this call: memory that is read-only after relocation has had anonymous pages since before `main`. The file
        // can't be truncated while it runs (`ETXTBSY`).
        if let Err(error) = unsafe { madvise(start, range.len(), Advice::LinuxDontNeed) } {
            tracing::debug!(%error, "pages of the program could not be released");
        }
    }
    Ok(())
}

/// The mappings of the program that are not writable and to which nothing was written.
fn clean(smaps: &str, program: &str) -> Vec<std::ops::Range<usize>> {
    let mut all = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(mapping) = mapping(line) {
            let (range, access, path) = mapping;
            current = (path == program && matches!(access, "r-xp" | "r--p")).then_some(range);
        } else if let Some(anonymous) = line.strip_prefix("Anonymous:")
            && let Some(range) = current.take()
            && anonymous.trim() == "0 kB"
        {
            all.push(range);
        }
    }
    all
}

/// The first line of a mapping: `START-END ACCESS OFFSET DEVICE INODE   PATH` (proc_pid_smaps(5)).
fn mapping(line: &str) -> Option<(std::ops::Range<usize>, &str, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(start)?..address(end)?;
    let (access, rest) = rest.split_once(' ')?;
    let path = rest.splitn(4, ' ').nth(3).unwrap_or_default().trim_start();
    Some((range, access, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c0000000-55d0c0400000 r--p 00000000 fe:01 42                         /usr/bin/attache proxy
Rss:                1748 kB
Anonymous:             0 kB
55d0c0400000-55d0c1400000 r-xp 00400000 fe:01 42                         /usr/bin/attache proxy
Rss:               10236 kB
Anonymous:             0 kB
AnonHugePages:         0 kB
55d0c1400000-55d0c1480000 r--p 01400000 fe:01 42                         /usr/bin/attache proxy
Rss:                 544 kB
Anonymous:           544 kB
55d0c1480000-55d0c1490000 rw-p 01480000 fe:01 42                         /usr/bin/attache proxy
Anonymous:             0 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:01 43                         /usr/lib/libc.so.6
Anonymous:             0 kB
7f0000200000-7f0000300000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
";

    #[test]
    fn only_unwritten_mappings_are_released() {
        let found = clean(SMAPS, "/usr/bin/attache proxy");
        assert_eq!(found, [0x55d0_c000_0000..0x55d0_c040_0000, 0x55d0_c040_0000..0x55d0_c140_0000]);
        assert!(clean(SMAPS, "/usr/bin/attache").is_empty());
        assert!(clean("", "").is_empty());
    }
}
