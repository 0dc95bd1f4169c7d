//! `process_*`: what the kernel says of this process. Families that it does not tell are left out.

use std::fs;

use super::family::Family;

/// Clock ticks a second in `/proc`: 100 on every architecture that we build for.
const TICKS: f64 = 100.0;

pub(super) fn families() -> Vec<Family> {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let stat = stat.as_deref().and_then(Stat::parse);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    vec![
        family(
            Family::counter(
                "process_cpu_seconds_total",
                "CPU time of the process, user and kernel.",
            ),
            stat.as_ref().map(|stat| stat.cpu_ticks / TICKS),
        ),
        family(
            Family::gauge(
                "process_start_time_seconds",
                "When the process started, in Unix time.",
            ),
            stat.as_ref()
                .zip(boot_time())
                .map(|(stat, boot)| boot + stat.start_ticks / TICKS),
        ),
        family(
            Family::gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM.",
            ),
            kilobytes(&status, "VmRSS:"),
        ),
        family(
            Family::gauge(
                "process_virtual_memory_bytes",
                "Address space of the process.",
            ),
            kilobytes(&status, "VmSize:"),
        ),
        family(
            Family::gauge("process_open_fds", "File descriptors open."),
            open_fds(),
        ),
        family(
            Family::gauge("process_max_fds", "File descriptors allowed."),
            max_fds(&limits),
        ),
    ]
}

fn family(mut family: Family, value: Option<f64>) -> Family {
    if let Some(value) = value {
        family.push(&[], value);
    }
    family
}

struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
}

impl Stat {
    /// The second field is the program's name in parentheses and may hold anything; all that follows are numbers.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `rest` begins with the third field of proc(5).
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: number(14)? + number(15)?,
            start_ticks: number(22)?,
        })
    }
}

/// When the machine booted, in Unix time.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// The one that reads the folder is not counted.
fn open_fds() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(count.saturating_sub(1)).ok().map(f64::from)
}

/// The soft limit; `None` when there is none.
fn max_fds(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_shift_the_fields() {
        let line = "42 (a) b (c) d) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 1200 99 7";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (300.0, 1200.0));
        assert!(Stat::parse("42 (x").is_none());
        assert!(Stat::parse("42 (x) S 1").is_none());
    }

    #[test]
    fn the_kernels_words_are_read() {
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t     512 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(524_288.0));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
        assert_eq!(max_fds("Max open files unlimited unlimited files"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let families = families()
            .into_iter()
            .filter_map(Family::gathered)
            .map(|gathered| gathered.family)
            .collect::<Vec<_>>();
        let expected = if cfg!(target_os = "linux") { 6 } else { 0 };
        assert_eq!(families.len(), expected);
        for family in families {
            let metric = &family.get_metric()[0];
            let value = metric.get_gauge().get_value() + metric.get_counter().get_value();
            assert!(value >= 0.0 && value.is_finite(), "{}", family.name());
        }
    }
}
