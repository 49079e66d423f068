//! PURE: token buckets, so that nobody asks faster than is fair.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::time::Instant;

/// How many tokens a bucket holds, and how many it gets back per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) burst: f64,
    pub(super) per_second: f64,
}

/// A bucket that starts full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, filled_at: now }
    }

    /// Takes one token, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.take_many(1.0, rate, now)
    }

    /// Takes so many tokens, or none at all.
    pub(super) fn take_many(&mut self, tokens: f64, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        if self.tokens < tokens {
            return false;
        }
        self.tokens -= tokens;
        true
    }

    /// Gives one token back.
    fn give_back(&mut self, rate: Rate) {
        self.tokens = (self.tokens + 1.0).min(rate.burst);
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.filled_at = now;
    }
}

/// Most addresses whose buckets are remembered; full buckets are forgotten first, they say nothing.
const ADDRESSES_REMEMBERED: usize = 4096;

/// One bucket per remote address; IPv6 counts by its /64, which one customer gets whole.
#[derive(Debug)]
pub(super) struct Gate {
    rate: Rate,
    buckets: HashMap<IpAddr, Bucket>,
}

impl Gate {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::new() }
    }

    /// Whether this address may have one more. When too many addresses are remembered, new ones are turned away.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let key = prefix(address);
        if self.buckets.len() >= ADDRESSES_REMEMBERED && !self.buckets.contains_key(&key) {
            let rate = self.rate;
            self.buckets.retain(|_, bucket| {
                bucket.fill(rate, now);
                bucket.tokens < rate.burst
            });
            if self.buckets.len() >= ADDRESSES_REMEMBERED {
                return false;
            }
        }
        let rate = self.rate;
        self.buckets.entry(key).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }

    /// Whoever was admitted turned out to be welcome: it does not count.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        let rate = self.rate;
        if let Some(bucket) = self.buckets.get_mut(&prefix(address)) {
            bucket.give_back(rate);
        }
    }
}

/// What counts as one address: of IPv6 the first 64 bits.
pub(super) fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let mut segments = v6.segments();
            segments[4..].fill(0);
            IpAddr::from(segments)
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate { burst: 2.0, per_second: 1.0 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE, start);
        assert!(bucket.take(RATE, start));
        assert!(bucket.take(RATE, start));
        assert!(!bucket.take(RATE, start));
        assert!(!bucket.take(RATE, start + Duration::from_millis(900)));
        assert!(bucket.take(RATE, start + Duration::from_millis(1100)));
        assert!(bucket.take(RATE, start + Duration::from_secs(3600)));
    }

    #[test]
    fn many_tokens_are_taken_together_or_not_at_all() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE, start);
        assert!(!bucket.take_many(3.0, RATE, start));
        assert!(bucket.take_many(2.0, RATE, start));
        assert!(!bucket.take(RATE, start));
    }

    #[test]
    fn who_is_welcome_does_not_count() {
        let start = Instant::now();
        let mut gate = Gate::new(RATE);
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        for _ in 0..10 {
            assert!(gate.admit(one, start));
            gate.give_back(one);
        }
        assert!(gate.admit(one, start) && gate.admit(one, start) && !gate.admit(one, start));
    }

    #[test]
    fn addresses_do_not_share_a_bucket_but_one_ipv6_network_does() {
        let start = Instant::now();
        let mut gate = Gate::new(RATE);
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(gate.admit(one, start) && gate.admit(one, start) && !gate.admit(one, start));
        assert!(gate.admit("10.0.0.2".parse().unwrap(), start));
        assert!(gate.admit("2001:db8::1".parse().unwrap(), start));
        assert!(gate.admit("2001:db8::2".parse().unwrap(), start));
        assert!(!gate.admit("2001:db8::3".parse().unwrap(), start));
        // An IPv4 address in IPv6 clothes is the same address.
        assert!(!gate.admit("::ffff:10.0.0.1".parse().unwrap(), start));
    }

    #[test]
    fn memory_is_bounded() {
        let start = Instant::now();
        let mut gate = Gate::new(RATE);
        for n in 0..ADDRESSES_REMEMBERED {
            assert!(gate.admit(IpAddr::from([10, 0, (n >> 8) as u8, n as u8]), start));
        }
        let late: IpAddr = "192.168.0.1".parse().unwrap();
        assert!(!gate.admit(late, start));
        assert!(gate.admit(late, start + Duration::from_secs(2)));
    }
}
