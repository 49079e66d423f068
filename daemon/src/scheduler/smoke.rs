//! PURE: a small render that needs no model, and what must come of it. A machine where it comes out right works.
//!
//! A plain colour, blurred where ComfyUI can: that is a convolution, on the GPU in today's releases, and leaves a plain colour as
//! it was but for the edges, which earlier releases darken.

use serde_json::json;

use super::suspicion;
use crate::executor::Inventory;

const SIDE: u32 = 64;
const COLOUR: [u8; 3] = [0x40, 0x80, 0xc0];
/// From bytes to numbers and back.
const ROUNDED: u8 = 2;

/// The graph, for a ComfyUI that has this; `None` where it lacks what every ComfyUI has.
pub(super) fn graph(inventory: &Inventory) -> Option<Vec<u8>> {
    if !inventory.has_class("EmptyImage") || !inventory.has_class("SaveImage") {
        return None;
    }
    let [r, g, b] = COLOUR;
    let color = u32::from_be_bytes([0, r, g, b]);
    let picture = json!({"width": SIDE, "height": SIDE, "batch_size": 1, "color": color});
    let mut graph = json!({"1": {"class_type": "EmptyImage", "inputs": picture}});
    let blurs = inventory.has_class("ImageBlur");
    if blurs {
        let inputs = json!({"image": ["1", 0], "blur_radius": 5, "sigma": 1.0});
        graph["2"] = json!({"class_type": "ImageBlur", "inputs": inputs});
    }
    let images = json!([if blurs { "2" } else { "1" }, 0]);
    graph["3"] = json!({"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "smoke"}});
    Some(graph.to_string().into_bytes())
}

/// Whether this is the picture that the graph describes.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn judge(picture: &[u8]) -> Result<(), String> {
    let Some((width, height, colour)) = suspicion::middle(picture) else {
        return Err("it cannot be decoded".to_owned());
    };
    if (width, height) != (SIDE, SIDE) {
        return Err(format!("it is {width}×{height} instead of {SIDE}×{SIDE}"));
    }
    let right = colour.is_some_and(|colour| {
        let mut sides = colour.iter().zip(&COLOUR);
        sides.all(|(one, other)| one.abs_diff(*other) <= ROUNDED)
    });
    if right { Ok(()) } else { Err("it has not the colour that it should have".to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb, RgbImage};

    use super::*;
    use crate::executor::graph::Graph;
    use crate::executor::policy::{Policy, Whose};

    fn inventory(classes: &[&str]) -> Inventory {
        let mut inventory = Inventory::default();
        inventory.classes = classes.iter().map(ToString::to_string).collect();
        inventory.classes.sort();
        inventory
    }

    fn png(side: u32, pixel: impl Fn(u32) -> [u8; 3]) -> Vec<u8> {
        let picture = RgbImage::from_fn(side, side, |x, _| Rgb(pixel(x)));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn it_blurs_where_comfyui_can_and_may_run_anywhere() {
        let every = ["EmptyImage", "SaveImage", "ImageBlur"];
        for (classes, expected) in [(&every[..], 3), (&every[..2], 2)] {
            let bytes = graph(&inventory(classes)).unwrap();
            let parsed = Graph::parse(&bytes).unwrap();
            assert_eq!(parsed.nodes().count(), expected);
            Policy::default().check(&bytes, b"", &[], Whose::Others).unwrap();
        }
        assert_eq!(graph(&inventory(&every[1..])), None);
    }

    #[test]
    fn only_the_picture_itself_is_right() {
        assert_eq!(judge(&png(SIDE, |_| COLOUR)), Ok(()));
        assert_eq!(judge(&png(SIDE, |_| [0x41, 0x7f, 0xc1])), Ok(()), "rounded");
        let edge = png(SIDE, |x| if (6..SIDE - 6).contains(&x) { COLOUR } else { [0x10; 3] });
        assert_eq!(judge(&edge), Ok(()), "as far as the blur reaches");
        let colour = Err("it has not the colour that it should have".to_owned());
        assert_eq!(judge(&png(SIDE, |_| [0; 3])), colour, "what a NaN leaves");
        assert_eq!(judge(&png(SIDE, |x| if x == 30 { [9; 3] } else { COLOUR })), colour);
        assert_eq!(judge(&png(32, |_| COLOUR)), Err("it is 32×32 instead of 64×64".to_owned()));
        assert_eq!(judge(&png(SIDE, |_| COLOUR)[..60]), Err("it cannot be decoded".to_owned()));
    }
}
