//! A process's memory, as the kernel counts it.

use anyhow::Context;

/// What a process has in memory now, and had at most since its start or [`forget_peak`], in bytes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) now: u64,
    pub(super) peak: u64,
}

/// Reads both.
pub(super) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let figure = |name| figure(&status, name).with_context(|| format!("find {name} in {path}"));
    Ok(Memory { now: figure("VmRSS")?, peak: figure("VmHWM")? })
}

/// Makes the peak what there is now.
pub(super) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5\n").with_context(|| format!("write {path}"))
}

/// A line `NAME:   123 kB` in bytes.
fn figure(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Bytes as people read them here.
pub(super) fn kilobytes(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory() {
        let Memory { now, peak } = memory(std::process::id()).unwrap();
        assert!(now > 1 << 16 && peak >= now, "{now} {peak}");
        assert_eq!(figure("VmHWM:\t  12 kB\n", "VmHWM"), Some(12 * 1024));
        assert_eq!(figure("VmHWMx:\t  12 kB\n", "VmHWM"), None);
    }
}
