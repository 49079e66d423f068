//! PURE: pictures as `/view` is asked for them, and masks put into them.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

/// Longer files are sent as they are.
pub(super) const LIMIT: u64 = 64 << 20;
/// Most memory that decoding one picture takes.
const MEMORY: u64 = 512 << 20;

/// What is made of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    format: Format,
    channel: Channel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Png,
    Webp,
    Jpeg(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    All,
    Rgb,
    Alpha,
}

/// Reads `preview=FORMAT;QUALITY` and `channel=`; none when the file is wanted as it is.
pub(super) fn wish(preview: Option<&str>, channel: Option<&str>) -> Option<Wish> {
    let channel = match channel {
        Some("rgb") => Channel::Rgb,
        Some("a") => Channel::Alpha,
        _ => Channel::All,
    };
    let format = preview.map(|preview| {
        let (format, quality) = preview.split_once(';').unwrap_or((preview, ""));
        let quality = quality.parse::<u8>().unwrap_or(90).clamp(1, 100);
        if format == "jpeg" || format == "jpg" { Format::Jpeg(quality) } else { Format::Webp }
    });
    match (format, channel) {
        (None, Channel::All) => None,
        // Core looks at the format only where the colours are wanted.
        (_, Channel::Alpha) => Some(Wish { format: Format::Png, channel }),
        (format, channel) => Some(Wish { format: format.unwrap_or(Format::Png), channel }),
    }
}

/// The picture as wished, with its type; none when it cannot be read.
pub(super) fn change(bytes: &[u8], wish: Wish) -> Option<(&'static str, Vec<u8>)> {
    let picture = decode(bytes)?;
    let picture = match wish.channel {
        Channel::All => picture,
        Channel::Rgb => picture.to_rgb8().into(),
        Channel::Alpha => {
            let mut picture = picture.to_rgba8();
            picture.pixels_mut().for_each(|pixel| pixel.0 = [0, 0, 0, pixel.0[3]]);
            picture.into()
        }
    };
    let mut out = Vec::new();
    let kind = match wish.format {
        Format::Png => {
            picture.write_with_encoder(PngEncoder::new(&mut out)).ok()?;
            "image/png"
        }
        Format::Webp => {
            let picture: DynamicImage = if picture.color().has_alpha() {
                picture.to_rgba8().into()
            } else {
                picture.to_rgb8().into()
            };
            picture.write_with_encoder(WebPEncoder::new_lossless(&mut out)).ok()?;
            "image/webp"
        }
        Format::Jpeg(quality) => {
            let picture: DynamicImage = picture.to_rgb8().into();
            picture.write_with_encoder(JpegEncoder::new_with_quality(&mut out, quality)).ok()?;
            "image/jpeg"
        }
    };
    Some((kind, out))
}

/// What a picture's pixels have, as far as masks are read from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bands {
    Grey,
    Colours,
    /// With whatever else.
    Alpha,
}

/// Looks at a picture's head; none when it cannot be read.
pub(super) fn bands(bytes: &[u8]) -> Option<Bands> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let color = reader.into_decoder().ok()?.color_type();
    Some(match (color.has_alpha(), color.has_color()) {
        (true, _) => Bands::Alpha,
        (false, true) => Bands::Colours,
        (false, false) => Bands::Grey,
    })
}

/// A picture with another's alpha as its own, as PNG; texts that stood in it stay. None when either cannot be read.
pub(super) fn masked(original: &[u8], mask: &[u8]) -> Option<Vec<u8>> {
    let mut picture = decode(original)?.to_rgba8();
    let mask = decode(mask)?.to_rgba8();
    let (width, height) = picture.dimensions();
    if mask.dimensions() != (width, height) {
        return None;
    }
    for (pixel, other) in picture.pixels_mut().zip(mask.pixels()) {
        pixel.0[3] = other.0[3];
    }
    let mut out = Vec::new();
    DynamicImage::from(picture).write_with_encoder(PngEncoder::new(&mut out)).ok()?;
    Some(with_texts(out, original))
}

fn decode(bytes: &[u8]) -> Option<DynamicImage> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    reader.decode().ok()
}

const SIGNATURE: usize = 8;

/// Length of a PNG's chunk with its frame, and its kind.
fn chunk(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let whole = length.checked_add(12)?;
    bytes.get(..whole).map(|chunk| (whole, &chunk[4..8]))
}

/// Puts the text chunks of one PNG behind the head of another.
fn with_texts(png: Vec<u8>, from: &[u8]) -> Vec<u8> {
    let mut texts = Vec::new();
    if from.starts_with(b"\x89PNG\r\n\x1a\n") {
        let mut rest = from.get(SIGNATURE..).unwrap_or_default();
        while let Some((length, kind)) = chunk(rest) {
            if matches!(kind, b"tEXt" | b"iTXt" | b"zTXt") {
                texts.extend_from_slice(&rest[..length]);
            }
            rest = &rest[length..];
        }
    }
    let head = chunk(png.get(SIGNATURE..).unwrap_or_default()).map_or(0, |(length, _)| length);
    let at = (SIGNATURE + head).min(png.len());
    [&png[..at], &texts, &png[at..]].concat()
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;

    fn png(pixel: [u8; 4]) -> Vec<u8> {
        let mut out = Vec::new();
        let picture = DynamicImage::from(RgbaImage::from_pixel(4, 4, Rgba(pixel)));
        picture.write_with_encoder(PngEncoder::new(&mut out)).unwrap();
        out
    }

    #[test]
    fn wishes_are_read_as_core_reads_them() {
        assert_eq!(wish(None, None), None);
        assert_eq!(wish(None, Some("rgba")), None);
        assert_eq!(wish(Some("webp;90"), None), Some(Wish { format: Format::Webp, channel: Channel::All }));
        assert_eq!(
            wish(Some("jpeg;80"), Some("rgb")),
            Some(Wish { format: Format::Jpeg(80), channel: Channel::Rgb })
        );
        assert_eq!(
            wish(Some("jpeg"), Some("a")),
            Some(Wish { format: Format::Png, channel: Channel::Alpha })
        );
    }

    #[test]
    fn pictures_become_what_is_wished() {
        let original = png([10, 20, 30, 40]);
        let make = |preview, channel| change(&original, wish(preview, channel).unwrap()).unwrap();
        assert_eq!(make(Some("webp;90"), None).0, "image/webp");
        let (kind, jpeg) = make(Some("jpeg;80"), None);
        assert!(kind == "image/jpeg" && jpeg.starts_with(&[0xff, 0xd8]));
        let (_, rgb) = make(None, Some("rgb"));
        assert!(!decode(&rgb).unwrap().color().has_alpha());
        let (_, alpha) = make(None, Some("a"));
        assert_eq!(decode(&alpha).unwrap().to_rgba8().get_pixel(0, 0).0, [0, 0, 0, 40]);
        assert!(change(b"no picture", wish(None, Some("a")).unwrap()).is_none());
    }

    #[test]
    fn a_mask_takes_the_place_of_the_alpha_and_texts_stay() {
        let mut original = png([10, 20, 30, 255]);
        let text = b"\0\0\0\x08tEXtprompt\0{CRC.";
        original.splice(33..33, text.iter().copied());
        let made = masked(&original, &png([0, 0, 0, 7])).unwrap();
        assert!(made.windows(6).any(|part| part == b"prompt"));
        let small = RgbaImage::from_pixel(2, 2, Rgba([0; 4]));
        let mut other = Vec::new();
        DynamicImage::from(small).write_with_encoder(PngEncoder::new(&mut other)).unwrap();
        assert!(masked(&original, &other).is_none(), "of another size");
    }
}
