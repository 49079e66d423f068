//! PURE: what is wrong with a picture that somebody else has rendered, as far as anybody can tell by looking at it.
//!
//! A NaN anywhere in the latents comes out of the VAE as a picture of one colour, black as a rule; a full disk or a dying
//! process leaves half a file. Neither is an error to ComfyUI. Only what is certain is called suspect: a plain colour only
//! where latents were decoded, another size only where the graph leaves no other node to change it.

use std::fmt;
use std::io::Cursor;

use image::{ImageError, ImageReader, Limits, imageops};
use scenemesh_protocol::codec::{Decode, Encode};
use scenemesh_protocol::task::{OutputFile, OutputKind};
use serde_json::Value;

use crate::executor::graph::{Graph, Node};

/// Largest file that is looked at, in bytes.
pub const FILE_LIMIT: u64 = 64 << 20;
/// Most memory that decoding one may take: 8000 × 8000 pixels with alpha.
const DECODED_LIMIT: u64 = 256 << 20;
/// Lossy formats do not keep one colour to the last bit.
const TOLERANCE: u8 = 2;

/// Why a picture is suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Suspicion {
    /// The file is cut short, or no picture.
    Undecodable,
    /// Every pixel has the same colour.
    Uniform,
    WrongSize {
        width: u32,
        height: u32,
        wanted_width: u32,
        wanted_height: u32,
    },
}

impl Suspicion {
    /// For programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Uniform => "uniform",
            Self::WrongSize { .. } => "wrong_size",
        }
    }
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable => f.write_str("it cannot be decoded"),
            Self::Uniform => f.write_str("every pixel has the same colour"),
            Self::WrongSize { width, height, wanted_width, wanted_height } => {
                write!(f, "it is {width}×{height} instead of {wanted_width}×{wanted_height}")
            }
        }
    }
}

/// A suspect result: its place among the task's outputs, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Suspect {
    pub output: u32,
    pub why: Suspicion,
}

/// What a graph's pictures must be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Width and height, where no node can have changed them.
    size: Option<(u32, u32)>,
    /// They come out of a VAE.
    decoded: bool,
}

/// Classes that leave the size of a picture alone; beside any other nothing is said of it.
const PLAIN: [&str; 24] = [
    "BasicGuider",
    "BasicScheduler",
    "CFGGuider",
    "CLIPLoader",
    "CLIPSetLastLayer",
    "CLIPTextEncode",
    "CLIPTextEncodeFlux",
    "CLIPTextEncodeSDXL",
    "CheckpointLoaderSimple",
    "ConditioningZeroOut",
    "DualCLIPLoader",
    "EmptyLatentImage",
    "EmptySD3LatentImage",
    "FluxGuidance",
    "KSampler",
    "KSamplerAdvanced",
    "KSamplerSelect",
    "LoraLoader",
    "ModelSamplingFlux",
    "RandomNoise",
    "SaveImage",
    "UNETLoader",
    "VAEDecode",
    "VAELoader",
];

impl Expected {
    pub fn of(graph: &Graph) -> Self {
        let decoded = graph.nodes().any(|node| node.class.starts_with("VAEDecode"));
        let plain = graph.nodes().all(|node| PLAIN.contains(&node.class));
        let mut sizes =
            graph.nodes().filter(|node| node.class.starts_with("Empty")).map(|node| size_of(&node));
        let size = match (sizes.next(), sizes.next()) {
            (Some(size), None) if plain => size,
            _ => None,
        };
        Self { size, decoded }
    }
}

/// Latents are counted in blocks of eight pixels; other sizes are rounded, and each model does that its own way.
fn size_of(node: &Node<'_>) -> Option<(u32, u32)> {
    let side = |name: &str| {
        let side = node.inputs.get(name).and_then(Value::as_u64)?;
        u32::try_from(side).ok().filter(|side| side % 16 == 0)
    };
    Some((side("width")?, side("height")?))
}

/// Whether a result is looked at: a picture, and not too large a one.
pub fn is_looked_at(output: &OutputFile) -> bool {
    output.kind == OutputKind::Image && output.bytes <= FILE_LIMIT
}

/// Looks at one picture. Formats that this node does not read, and pictures that would take too much memory, are not
/// suspect.
pub fn look(bytes: &[u8], expected: &Expected) -> Option<Suspicion> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let Some(format) = reader.format() else {
        // Nothing at all, or noise: whatever has a name in this format begins otherwise.
        return bytes.is_empty().then_some(Suspicion::Undecodable);
    };
    let reader = limited(reader);
    if !format.reading_enabled() {
        return None;
    }
    let picture = match reader.decode() {
        Ok(picture) => picture,
        Err(ImageError::Limits(_) | ImageError::Unsupported(_)) => return None,
        Err(_) => return Some(Suspicion::Undecodable),
    };
    let (width, height) = (picture.width(), picture.height());
    if let Some((wanted_width, wanted_height)) = expected.size
        && (width, height) != (wanted_width, wanted_height)
    {
        return Some(Suspicion::WrongSize { width, height, wanted_width, wanted_height });
    }
    let uniform = expected.decoded && width * height > 1 && is_uniform(&picture.into_rgb8());
    uniform.then_some(Suspicion::Uniform)
}

/// Size of a picture, and the colour of its middle where all of that has the same; `None` for what is none, or too large
/// a one. Filters do as they like along the edges.
pub fn middle(bytes: &[u8]) -> Option<(u32, u32, Option<[u8; 3]>)> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let picture = limited(reader).decode().ok()?.into_rgb8();
    let (width, height) = picture.dimensions();
    let inner = imageops::crop_imm(&picture, width / 4, height / 4, width / 2, height / 2).to_image();
    let colour = inner.pixels().next().filter(|_| is_uniform(&inner)).map(|pixel| pixel.0);
    Some((width, height, colour))
}

fn limited(mut reader: ImageReader<Cursor<&[u8]>>) -> ImageReader<Cursor<&[u8]>> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODED_LIMIT);
    reader.limits(limits);
    reader
}

fn is_uniform(picture: &image::RgbImage) -> bool {
    let Some(first) = picture.pixels().next() else { return false };
    picture.pixels().all(|pixel| {
        let mut sides = pixel.0.iter().zip(&first.0);
        sides.all(|(one, other)| one.abs_diff(*other) <= TOLERANCE)
    })
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, RgbImage};

    use super::*;

    fn graph(extra: &str) -> Graph {
        let text = format!(
            r#"{{"5":{{"class_type":"EmptyLatentImage","inputs":{{"width":64,"height":32,"batch_size":1}}}},
                "8":{{"class_type":"VAEDecode","inputs":{{}}}}{extra}}}"#
        );
        Graph::parse(text.as_bytes()).unwrap()
    }

    fn encoded(width: u32, height: u32, format: ImageFormat, pixel: impl Fn(u32, u32) -> u8) -> Vec<u8> {
        let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb([pixel(x, y), 40, 60]));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn what_a_nan_leaves_is_suspect_and_a_picture_is_not() {
        let expected = Expected::of(&graph(""));
        assert_eq!(expected, Expected { size: Some((64, 32)), decoded: true });
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let fine = encoded(64, 32, format, |x, y| u8::try_from(x + 4 * y).unwrap());
            assert_eq!(look(&fine, &expected), None, "{format:?}");
            let flat = encoded(64, 32, format, |_, _| 0);
            assert_eq!(look(&flat, &expected), Some(Suspicion::Uniform), "{format:?}");
            let small = encoded(32, 32, format, |x, _| u8::try_from(x).unwrap());
            let wrong = Suspicion::WrongSize { width: 32, height: 32, wanted_width: 64, wanted_height: 32 };
            assert_eq!(look(&small, &expected), Some(wrong), "{format:?}");
            for length in [12, fine.len() / 2] {
                // A decoder of JPEG may show what there is of it.
                let cut = look(&fine[..length], &expected);
                assert!(
                    cut == Some(Suspicion::Undecodable) || format == ImageFormat::Jpeg,
                    "{format:?} {cut:?}"
                );
            }
        }
    }

    #[test]
    fn only_what_is_certain_is_said() {
        let scaled = Expected::of(&graph(r#","9":{"class_type":"ImageScale","inputs":{}}"#));
        assert_eq!(scaled, Expected { size: None, decoded: true });
        let odd = graph("");
        let mut odd = odd;
        odd.put("5", "width", Value::from(65));
        assert_eq!(Expected::of(&odd).size, None, "rounded by each model in its own way");
        let plain = Graph::parse(br#"{"1":{"class_type":"EmptyImage","inputs":{"color":0}}}"#).unwrap();
        let flat = encoded(8, 8, ImageFormat::Png, |_, _| 0);
        assert_eq!(look(&flat, &Expected::of(&plain)), None, "a plain colour was asked for");
        assert_eq!(look(b"RIFF....WAVEfmt ", &Expected::default()), None, "not a picture of ours to judge");
        assert_eq!(look(b"", &Expected::default()), Some(Suspicion::Undecodable));
    }

    #[test]
    fn a_bomb_is_not_decoded_and_noise_is_no_panic() {
        let mut bomb = encoded(8, 8, ImageFormat::Png, |x, _| u8::try_from(x).unwrap());
        // Width and height in the header, with its checksum made anew.
        bomb[16..20].copy_from_slice(&100_000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&100_000_u32.to_be_bytes());
        let checksum = crc32fast::hash(&bomb[12..29]).to_be_bytes();
        bomb[29..33].copy_from_slice(&checksum);
        assert_eq!(look(&bomb, &Expected::default()), None);
        let fine = encoded(16, 16, ImageFormat::Png, |x, y| u8::try_from(x * y).unwrap());
        for at in 0..fine.len() {
            let mut bad = fine.clone();
            bad[at] ^= 0x55;
            look(&bad, &Expected { size: Some((16, 16)), decoded: true });
        }
    }
}
