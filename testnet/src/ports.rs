//! Ports that stay free while whoever had them is being restarted.

use std::net::TcpListener;
use std::ops::Range;

use anyhow::{Context, Result};

/// Below what operating systems hand out by themselves (Linux from 32768, others from 49152): nobody's outgoing
/// connection and nobody's port 0 takes one of these in between.
const RANGE: Range<u16> = 10_000..32_000;

/// A port of loopback that is free now, with `beside` free ones after it.
///
/// # Errors
/// When none is found.
pub fn free(beside: u16) -> Result<u16> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..256 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).ok().context("asking the operating system for a random number")?;
        let port = RANGE.start + u16::from_le_bytes(random) % (RANGE.end - RANGE.start);
        if (port..=port.saturating_add(beside)).all(is_free) {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}

/// A free port of loopback as a multiaddr.
///
/// # Errors
/// As [`free`].
pub fn multiaddr() -> Result<String> {
    Ok(format!("/ip4/127.0.0.1/tcp/{}", free(0)?))
}
