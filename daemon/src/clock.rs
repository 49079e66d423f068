//! Wall time, read in one place; everything that measures durations uses tokio's monotonic clock instead.

/// Milliseconds since the Unix epoch, as this machine's clock has it.
pub fn wall_ms() -> u64 {
    wall_us() / 1000
}

/// Microseconds since the Unix epoch, as this machine's clock has it.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
