//! PURE: sound as FLAC (RFC 9639), 16 bits, constant and verbatim subframes only.

/// Interleaved 16-bit samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sound {
    /// Samples per second.
    pub(super) rate: u32,
    /// 1 or 2.
    pub(super) channels: u8,
    pub(super) samples: Vec<i16>,
}

/// Samples per block and channel.
const BLOCK: usize = 4096;

impl Sound {
    pub(super) fn flac(&self) -> Vec<u8> {
        let channels = usize::from(self.channels.max(1));
        let total = self.samples.len() / channels;
        let mut out = b"fLaC".to_vec();
        // STREAMINFO, the last metadata block, 34 bytes.
        out.extend([0x80, 0, 0, 34]);
        let block = (BLOCK as u16).to_be_bytes();
        out.extend([block, block].concat());
        out.extend([0; 6]);
        let packed = u64::from(self.rate) << 44 | (channels as u64 - 1) << 41 | 15 << 36 | total as u64;
        out.extend(packed.to_be_bytes());
        out.extend([0; 16]);
        for (number, block) in self.samples.chunks(BLOCK * channels).enumerate() {
            out.extend(frame(block, channels, number));
        }
        out
    }
}

fn frame(block: &[i16], channels: usize, number: usize) -> Vec<u8> {
    let length = u16::try_from(block.len() / channels - 1).unwrap_or(u16::MAX);
    // Fixed block size; length in 16 bits at the end of the header; rate and sample size as in STREAMINFO.
    let mut out = vec![0xff, 0xf8, 0x70, ((channels - 1) << 4) as u8];
    out.extend(coded(number as u32));
    out.extend(length.to_be_bytes());
    out.push(crc8(&out));
    for channel in 0..channels {
        let samples = || block.iter().skip(channel).step_by(channels);
        let first = samples().next().copied().unwrap_or_default();
        if samples().all(|&sample| sample == first) {
            out.push(0x00);
            out.extend(first.to_be_bytes());
        } else {
            out.push(0x02);
            out.extend(samples().flat_map(|sample| sample.to_be_bytes()));
        }
    }
    let check = crc16(&out);
    out.extend(check.to_be_bytes());
    out
}

/// A frame number in UTF-8's way of writing numbers.
fn coded(number: u32) -> Vec<u8> {
    if number < 0x80 {
        return vec![number as u8];
    }
    let tails = (1..6).find(|tails| number < 1 << (tails * 5 + 6)).unwrap_or(6);
    let lead = !(0xff_u8 >> (tails + 1));
    let mut out = vec![lead | (number >> (tails * 6)) as u8];
    out.extend((0..tails).rev().map(|tail| 0x80 | (number >> (tail * 6) & 0x3f) as u8));
    out
}

fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| crc << 1 ^ if crc & 0x80 == 0 { 0 } else { 0x07 })
    })
}

fn crc16(bytes: &[u8]) -> u16 {
    let step = |crc: u16, _| crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x8005 };
    bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ u16::from(*byte) << 8, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_numbers_are_written_as_in_utf8() {
        for number in [0, 0x7f, 0x80, 0x7ff, 0x800, 0xffff, 0x1_0000] {
            let expected = char::from_u32(number).map(|ch| ch.to_string().into_bytes());
            assert_eq!(Some(coded(number)), expected, "{number:#x}");
        }
    }

    #[test]
    fn checksums_have_their_known_values() {
        // The check values of CRC-8 (SMBUS) and CRC-16 (UMTS) for "123456789".
        assert_eq!((crc8(b"123456789"), crc16(b"123456789")), (0xf4, 0xfee8));
    }

    #[test]
    fn silence_is_small() {
        let sound = Sound { rate: 44_100, channels: 2, samples: vec![0; 44_100 * 2] };
        let bytes = sound.flac();
        assert!(bytes.starts_with(b"fLaC") && bytes.len() < 300, "{}", bytes.len());
    }
}
