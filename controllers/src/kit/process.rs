//! The standard `process_*` metrics, read from `/proc` at each scrape.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Ticks a second in `/proc/*/stat`: fixed by the kernel's ABI towards programs.
const TICKS: f64 = 100.0;

/// Reads the metrics of this process.
#[derive(Debug)]
pub(crate) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let Some(sample) = Sample::read() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(sample.cpu_seconds);
        let described =
            encoder.encode_descriptor("process_cpu_seconds", "User and system CPU time", None, MetricType::Counter)?;
        cpu.encode(described)?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory", sample.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory", sample.virtual_bytes),
            ("process_open_fds", "Open file descriptors", sample.open_fds),
            ("process_max_fds", "Limit of open file descriptors", sample.max_fds),
            ("process_start_time_seconds", "Start of the process since the epoch", sample.start_seconds),
        ] {
            let described = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(described)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Sample {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    open_fds: f64,
    max_fds: f64,
    start_seconds: f64,
}

impl Sample {
    /// `None` where there is no `/proc`.
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in brackets and may itself hold blanks and brackets.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let boot = number_after(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        #[allow(clippy::cast_precision_loss)] // a sample is a float by definition
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count() as f64;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS,
            resident_bytes: number_after(&status, "VmRSS:")? * 1024.0,
            virtual_bytes: number_after(&status, "VmSize:")? * 1024.0,
            open_fds,
            max_fds: number_after(&limits, "Max open files").unwrap_or(f64::INFINITY),
            start_seconds: boot + field(22)? / TICKS,
        })
    }
}

/// The first number of the line that begins with `start`.
fn number_after(text: &str, start: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(start))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_files_and_a_start_in_the_past() {
        let sample = Sample::read().unwrap();
        assert!(sample.resident_bytes > 1e5 && sample.virtual_bytes >= sample.resident_bytes, "{sample:?}");
        assert!(sample.open_fds >= 3.0 && sample.max_fds >= sample.open_fds, "{sample:?}");
        let now = jiff::Timestamp::now().as_duration().as_secs_f64();
        assert!(sample.start_seconds <= now && sample.start_seconds > now - 86_400.0, "{sample:?}");
    }
}
