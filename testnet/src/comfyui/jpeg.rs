//! PURE: previews as baseline JPEG (ITU-T T.81), each 8×8 block in one colour, which is what an enlarged latent looks like.

use super::raster::Raster;

/// How many bits a block's brightness difference needs, as Huffman code lengths: the standard luminance table (T.81, K.3).
const DC_COUNTS: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
/// The codes that follow from the counts, for differences of 0 to 11 bits.
const DC_CODES: [(u16, u8); 12] = [
    (0b00, 2),
    (0b010, 3),
    (0b011, 3),
    (0b100, 3),
    (0b101, 3),
    (0b110, 3),
    (0b1110, 4),
    (0b1_1110, 5),
    (0b11_1110, 6),
    (0b111_1110, 7),
    (0b1111_1110, 8),
    (0b1_1111_1110, 9),
];

/// A JPEG eight times as wide and high as `mosaic`.
pub(super) fn enlarged(mosaic: &Raster) -> Vec<u8> {
    let mut out = vec![0xff, 0xd8];
    segment(&mut out, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    // One table of eights: a block's mean times 8 is its DC coefficient, so that the mean itself is coded.
    segment(&mut out, 0xdb, &[&[0][..], &[8; 64]].concat());
    let side = |tiles: u32| u16::try_from(tiles * 8).unwrap_or(u16::MAX).to_be_bytes();
    let (height, width) = (side(mosaic.height), side(mosaic.width));
    let frame = [8, height[0], height[1], width[0], width[1], 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0];
    segment(&mut out, 0xc0, &frame);
    segment(&mut out, 0xc4, &[&[0x00][..], &DC_COUNTS, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]].concat());
    // The only symbol of the AC table is "end of block", coded as one zero bit.
    segment(&mut out, 0xc4, &[&[0x10, 1][..], &[0; 15], &[0]].concat());
    segment(&mut out, 0xda, &[3, 1, 0x00, 2, 0x00, 3, 0x00, 0, 63, 0]);

    let mut bits = Bits { out, held: 0, count: 0 };
    let mut last = [0_i32; 3];
    for pixel in mosaic.pixels.chunks_exact(3) {
        for (channel, value) in ycc(pixel).into_iter().enumerate() {
            bits.difference(value - last[channel]);
            bits.push(0, 1);
            last[channel] = value;
        }
    }
    bits.finish()
}

/// JFIF's colour space, shifted to be centred on zero; in thousandths to stay in whole numbers.
fn ycc(pixel: &[u8]) -> [i32; 3] {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(i32::from);
    [
        (299 * r + 587 * g + 114 * b) / 1000 - 128,
        (-169 * r - 331 * g + 500 * b) / 1000,
        (500 * r - 419 * g - 81 * b) / 1000,
    ]
}

fn segment(out: &mut Vec<u8>, marker: u8, body: &[u8]) {
    out.extend([0xff, marker]);
    out.extend(u16::try_from(body.len() + 2).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(body);
}

struct Bits {
    out: Vec<u8>,
    held: u32,
    count: u8,
}

impl Bits {
    fn push(&mut self, value: u16, length: u8) {
        self.held = self.held << length | u32::from(value);
        self.count += length;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.held >> self.count) as u8;
            self.out.push(byte);
            if byte == 0xff {
                self.out.push(0);
            }
        }
        self.held &= (1 << self.count) - 1;
    }

    fn difference(&mut self, value: i32) {
        let size = 32 - value.unsigned_abs().leading_zeros();
        let (code, length) = DC_CODES[size as usize];
        self.push(code, length);
        if size > 0 {
            // Negative differences are written as their ones' complement.
            let written = if value < 0 { value + (1 << size) - 1 } else { value };
            self.push(written as u16, size as u8);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            let missing = 8 - self.count;
            self.push((1 << missing) - 1, missing);
        }
        self.out.extend([0xff, 0xd9]);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_has_the_bytes_of_a_jpeg() {
        let bytes = enlarged(&Raster::filled(2, 1, [255, 0, 0]));
        assert!(bytes.starts_with(&[0xff, 0xd8, 0xff, 0xe0]) && bytes.ends_with(&[0xff, 0xd9]));
        // Differences -52, -43 and 127 and three times none, each with its end of block, padded with ones. libjpeg reads red from it.
        assert_eq!(hex(&bytes[bytes.len() - 10..]), "3f00e2dca3dfc00fffd9");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
