//! Pictures as bytes: PNG with ComfyUI's text chunks, still and animated WebP, and back.

use std::io::Cursor;

/// One 8-bit RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raster {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixels: Vec<u8>,
}

impl Raster {
    pub(super) fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        let pixels = colour.repeat(width as usize * height as usize);
        Self { width, height, pixels }
    }

    pub(super) fn inverted(&self) -> Self {
        Self { pixels: self.pixels.iter().map(|value| 255 - value).collect(), ..*self }
    }

    fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// Nearest neighbour; good enough for a simulated machine, whatever the method asked for.
    pub(super) fn scaled(&self, width: u32, height: u32) -> Self {
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
        let source = |at: u32, from: u32, to: u32| {
            let scaled = (u64::from(at) * 2 + 1) * u64::from(from) / (u64::from(to) * 2);
            u32::try_from(scaled).unwrap_or(u32::MAX).min(from - 1)
        };
        for y in 0..height {
            for x in 0..width {
                pixels.extend(self.pixel(source(x, self.width, width), source(y, self.height, height)));
            }
        }
        Self { width, height, pixels }
    }

    /// A PNG with these `tEXt` chunks.
    pub(super) fn png(&self, texts: &[(String, String)]) -> Vec<u8> {
        png(self.width, self.height, png::ColorType::Rgb, &self.pixels, texts)
    }

    pub(super) fn webp(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoder = image_webp::WebPEncoder::new(&mut bytes);
        let encoded = encoder.encode(&self.pixels, self.width, self.height, image_webp::ColorType::Rgb8);
        encoded.expect("a raster has as many pixels as it says, and writing to memory does not fail");
        bytes
    }

    /// Reads a PNG or WebP and says whether it had an alpha channel; anything else is unknown to this machine.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, Option<Vec<u8>>)> {
        let (width, height, rgba) = read_rgba(bytes)?;
        let pixels = rgba.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        let alpha: Vec<u8> = rgba.chunks_exact(4).map(|pixel| pixel[3]).collect();
        let opaque = alpha.iter().all(|&value| value == 255);
        Some((Self { width, height, pixels }, (!opaque).then_some(alpha)))
    }
}

/// The `tEXt` chunks of a PNG.
pub(super) fn texts(bytes: &[u8]) -> Vec<(String, String)> {
    let reader = png::Decoder::new(Cursor::new(bytes)).read_info();
    let chunks = reader.map(|reader| reader.info().uncompressed_latin1_text.clone()).unwrap_or_default();
    chunks.into_iter().map(|chunk| (chunk.keyword, chunk.text)).collect()
}

/// A PNG with these pixels and `tEXt` chunks.
pub(super) fn png(
    width: u32,
    height: u32,
    colour: png::ColorType,
    pixels: &[u8],
    texts: &[(String, String)],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    for (keyword, text) in texts {
        // A keyword over 79 characters is not representable; the real encoder would fail too.
        encoder.add_text_chunk(keyword.clone(), text.clone()).ok();
    }
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(pixels)?;
        writer.finish()
    });
    written.expect("a picture has as many pixels as it says, and writing to memory does not fail");
    bytes
}

/// Width, height and RGBA pixels of a PNG or WebP.
pub(super) fn read_rgba(bytes: &[u8]) -> Option<(u32, u32, Vec<u8>)> {
    if bytes.starts_with(b"RIFF") {
        let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).ok()?;
        let mut pixels = vec![0; decoder.output_buffer_size()?];
        decoder.read_image(&mut pixels).ok()?;
        let (width, height) = decoder.dimensions();
        let channels = if decoder.has_alpha() { 4 } else { 3 };
        return Some((width, height, widened(&pixels, channels)));
    }
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().ok()?;
    let mut pixels = vec![0; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut pixels).ok()?;
    pixels.truncate(info.buffer_size());
    Some((info.width, info.height, widened(&pixels, info.color_type.samples())))
}

fn widened(pixels: &[u8], channels: usize) -> Vec<u8> {
    let rgba = |pixel: &[u8]| match *pixel {
        [grey] => [grey, grey, grey, 255],
        [grey, alpha] => [grey, grey, grey, alpha],
        [r, g, b] => [r, g, b, 255],
        [r, g, b, a, ..] => [r, g, b, a],
        [] => [0; 4],
    };
    pixels.chunks_exact(channels.max(1)).flat_map(rgba).collect()
}

/// An animated WebP (RIFF container of the WebP specification: VP8X, ANIM, one ANMF with a VP8L stream per frame), looping for ever.
pub(super) fn animated_webp(frames: &[Raster], frame_ms: u32) -> Vec<u8> {
    let (width, height) = frames.first().map_or((1, 1), |frame| (frame.width, frame.height));
    let size = |out: &mut Vec<u8>| {
        out.extend(&(width - 1).to_le_bytes()[..3]);
        out.extend(&(height - 1).to_le_bytes()[..3]);
    };
    let mut body = b"WEBP".to_vec();
    let mut header = vec![0b0000_0010, 0, 0, 0];
    size(&mut header);
    chunk(&mut body, b"VP8X", &header);
    chunk(&mut body, b"ANIM", &[0; 6]);
    for frame in frames {
        let still = frame.webp();
        let mut data = vec![0; 6];
        size(&mut data);
        data.extend(&frame_ms.to_le_bytes()[..3]);
        data.push(0b0000_0010);
        // The still file is "RIFF" size "WEBP" and then the one chunk a frame needs.
        data.extend(&still[12..]);
        chunk(&mut body, b"ANMF", &data);
    }
    let mut bytes = Vec::with_capacity(body.len() + 8);
    chunk(&mut bytes, b"RIFF", &body);
    bytes
}

fn chunk(out: &mut Vec<u8>, tag: &[u8; 4], data: &[u8]) {
    out.extend(tag);
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(data);
    if data.len() % 2 == 1 {
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_survive_png_and_webp() {
        let raster = super::super::picture::draw(&[3; 32], 0, 24, 16);
        let bytes = raster.png(&[("prompt".to_owned(), "{}".to_owned())]);
        assert_eq!(Raster::read(&bytes), Some((raster.clone(), None)));
        assert_eq!(texts(&bytes), [("prompt".to_owned(), "{}".to_owned())]);
        assert_eq!(Raster::read(&raster.webp()), Some((raster, None)));
    }

    #[test]
    fn an_animation_keeps_every_frame() {
        let frames: Vec<Raster> =
            (0..3).map(|frame| super::super::picture::draw(&[3; 32], frame, 24, 16)).collect();
        let bytes = animated_webp(&frames, 125);
        let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).unwrap();
        assert_eq!((decoder.is_animated(), decoder.num_frames(), decoder.loop_duration()), (true, 3, 375));
        let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
        for frame in &frames {
            decoder.read_frame(&mut pixels).unwrap();
            assert_eq!(widened(&pixels, pixels.len() / (24 * 16)), widened(&frame.pixels, 3));
        }
    }
}
