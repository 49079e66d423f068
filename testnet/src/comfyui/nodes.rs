//! What each node computes. Classes without an entry of their own pass a mark on: a hash of their class and inputs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::FaultKind;
use super::disk::{Disk, Folder, SavePlace};
use super::flac::Sound;
use super::machine::Machine;
use super::picture::{self, Seed};
use super::pythonic::{self, Raised};
use super::raster::{self, Raster};

/// What a node's output slot holds.
#[derive(Clone, Debug)]
pub(super) enum Held {
    Frames(Arc<Vec<Raster>>),
    Latent(Latent),
    Sound(Arc<Sound>),
    /// A literal, or the text or number of a primitive node.
    Plain(Value),
    /// A model, a conditioning, a mask: nothing to look at, but it decides what comes out.
    Mark(Mark),
}

/// Pixels to be: what a decode of it draws, and how large.
#[derive(Clone, Debug)]
pub(super) struct Latent {
    pub(super) seed: Seed,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) batch: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Mark {
    hash: Seed,
    /// The model files behind it.
    pub(super) models: Vec<String>,
}

/// A node's inputs by name, links resolved.
pub(super) type Inputs = BTreeMap<String, Held>;

/// What a node gives: its output slots, and what it shows to the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Product {
    pub(super) slots: Vec<Held>,
    pub(super) ui: Option<Value>,
}

/// Where a node runs.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) machine: &'a Machine,
    pub(super) node: &'a str,
    pub(super) class: &'a str,
    /// What saved pictures carry: the prompt, and the workflow where the client sent it.
    pub(super) texts: &'a [(String, String)],
}

impl Held {
    fn digest(&self) -> Seed {
        let mut hasher = blake3::Hasher::new();
        match self {
            Self::Frames(frames) => {
                for frame in frames.iter() {
                    hasher
                        .update(&frame.width.to_le_bytes())
                        .update(&frame.height.to_le_bytes())
                        .update(&frame.pixels);
                }
            }
            Self::Latent(latent) => {
                hasher.update(&latent.seed);
                for number in [latent.width, latent.height, latent.batch] {
                    hasher.update(&number.to_le_bytes());
                }
            }
            Self::Sound(sound) => {
                hasher.update(&sound.flac());
            }
            Self::Plain(value) => {
                hasher.update(value.to_string().as_bytes());
            }
            Self::Mark(mark) => {
                hasher.update(&mark.hash);
            }
        }
        hasher.finalize().into()
    }

    /// As `current_inputs` of an execution error shows it.
    pub(super) fn shown(&self) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Frames(frames) => Value::from(format!("<{} frames>", frames.len())),
            Self::Latent(latent) => Value::from(format!("<latent {}x{}>", latent.width, latent.height)),
            Self::Sound(_) => Value::from("<audio>"),
            Self::Mark(_) => Value::from("<object>"),
        }
    }
}

fn number(inputs: &Inputs, name: &str) -> u32 {
    let value = plain(inputs, name).as_u64().unwrap_or(0);
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn plain<'a>(inputs: &'a Inputs, name: &str) -> &'a Value {
    match inputs.get(name) {
        Some(Held::Plain(value)) => value,
        _ => &Value::Null,
    }
}

fn text(inputs: &Inputs, name: &str) -> String {
    pythonic::text(plain(inputs, name))
}

fn wrong(class: &str, name: &str) -> Raised {
    Raised::new("TypeError", format!("{class}: input {name} holds nothing that this node can use"))
}

fn latent<'a>(inputs: &'a Inputs, name: &str, class: &str) -> Result<&'a Latent, Raised> {
    match inputs.get(name) {
        Some(Held::Latent(latent)) => Ok(latent),
        _ => Err(wrong(class, name)),
    }
}

pub(super) fn frames(inputs: &Inputs, name: &str, class: &str) -> Result<Arc<Vec<Raster>>, Raised> {
    match inputs.get(name) {
        Some(Held::Frames(frames)) => Ok(Arc::clone(frames)),
        _ => Err(wrong(class, name)),
    }
}

/// A hash of a class and all that flows into it: equal graphs have equal ones, on every machine.
fn mark(class: &str, inputs: &Inputs) -> Mark {
    let mut hasher = blake3::Hasher::new();
    hasher.update(class.as_bytes());
    let mut models: Vec<String> = Vec::new();
    for (name, held) in inputs {
        hasher.update(&[0]).update(name.as_bytes()).update(&held.digest());
        match held {
            Held::Mark(mark) => models.extend(mark.models.iter().cloned()),
            Held::Plain(Value::String(file)) if is_model_input(name) => models.push(file.clone()),
            _ => {}
        }
    }
    models.sort();
    models.dedup();
    Mark { hash: hasher.finalize().into(), models }
}

fn is_model_input(name: &str) -> bool {
    name.trim_end_matches(['1', '2']).ends_with("_name") && name != "sampler_name"
}

/// The model files that must be on the GPU before this node runs.
pub(super) fn models(class: &str, inputs: &Inputs) -> Vec<String> {
    match inputs.get("model") {
        Some(Held::Mark(mark)) if is_sampler(class) => mark.models.clone(),
        _ if class.contains("Loader") => mark(class, inputs).models,
        _ => Vec::new(),
    }
}

pub(super) fn is_sampler(class: &str) -> bool {
    matches!(class, "KSampler" | "KSamplerAdvanced")
}

/// What a sampler will have drawn, and in how many steps.
pub(super) fn sampled(class: &str, inputs: &Inputs) -> Result<(Latent, u32), Raised> {
    let canvas = latent(inputs, "latent_image", class)?;
    let steps = number(inputs, "steps");
    let steps = match class {
        "KSamplerAdvanced" => {
            number(inputs, "end_at_step").min(steps).saturating_sub(number(inputs, "start_at_step"))
        }
        _ => steps,
    };
    Ok((Latent { seed: mark(class, inputs).hash, ..canvas.clone() }, steps))
}

/// Runs one node that needs no waiting. Blocks: it draws, packs and writes files.
pub(super) fn compute(place: &Place<'_>, inputs: &Inputs) -> Result<Product, Raised> {
    let class = place.class;
    let slot = |held: Held| Ok(Product { slots: vec![held], ui: None });
    match class {
        "EmptyImage" => {
            let [_, r, g, b] = number(inputs, "color").to_be_bytes();
            let frame = Raster::filled(number(inputs, "width"), number(inputs, "height"), [r, g, b]);
            slot(Held::Frames(Arc::new(vec![frame; number(inputs, "batch_size") as usize])))
        }
        "LoadImage" => load_image(place, inputs),
        "LoadImageMask" => load_mask(place, inputs),
        // A mask is a picture whose bands are one; that is all these two change.
        "InvertMask" => slot(changed(&frames(inputs, "mask", class)?, Raster::inverted)),
        "MaskToImage" => slot(Held::Frames(frames(inputs, "mask", class)?)),
        "ImageInvert" => slot(changed(&frames(inputs, "image", class)?, Raster::inverted)),
        "ImageScale" | "ImageScaleBy" => {
            let source = frames(inputs, "image", class)?;
            slot(changed(&source, |frame| {
                let (width, height) = scaled_size(class, inputs, frame);
                frame.scaled(width, height)
            }))
        }
        "EmptyLatentImage" | "EmptySD3LatentImage" => slot(Held::Latent(Latent {
            seed: [0; 32],
            width: (number(inputs, "width") / 8).max(1) * 8,
            height: (number(inputs, "height") / 8).max(1) * 8,
            batch: number(inputs, "batch_size"),
        })),
        "VAEEncode" => {
            let source = frames(inputs, "pixels", class)?;
            let (width, height) = source.first().map_or((8, 8), |frame| (frame.width, frame.height));
            let batch = u32::try_from(source.len()).unwrap_or(u32::MAX);
            let seed = mark(class, inputs).hash;
            slot(Held::Latent(Latent {
                seed,
                width: (width / 8).max(1) * 8,
                height: (height / 8).max(1) * 8,
                batch,
            }))
        }
        "VAEDecode" => {
            let latent = latent(inputs, "samples", class)?;
            let draw = |frame| picture::draw(&latent.seed, frame, latent.width, latent.height);
            slot(Held::Frames(Arc::new((0..latent.batch as usize).map(draw).collect())))
        }
        "EmptyAudio" => {
            let rate = number(inputs, "sample_rate").max(1);
            let channels = number(inputs, "channels").clamp(1, 2);
            // Bounded to an hour; the real node would run out of memory in its own time.
            let seconds = plain(inputs, "duration").as_f64().unwrap_or(0.0).clamp(0.0, 3600.0);
            let count = (seconds * f64::from(rate)).round() as usize * channels as usize;
            slot(Held::Sound(Arc::new(Sound { rate, channels: channels as u8, samples: vec![0; count] })))
        }
        "PrimitiveString" | "PrimitiveInt" | "PrimitiveFloat" => {
            slot(Held::Plain(plain(inputs, "value").clone()))
        }
        "StringConcatenate" => {
            let parts = [text(inputs, "string_a"), text(inputs, "string_b")];
            slot(Held::Plain(Value::from(parts.join(&text(inputs, "delimiter")))))
        }
        "SaveImage" => save_images(place, inputs, Folder::Output, &text(inputs, "filename_prefix")),
        "PreviewImage" => save_images(place, inputs, Folder::Temp, &temporary_prefix(place)),
        "SaveAnimatedWEBP" => save_animation(place, inputs),
        "SaveAudio" => save_audio(place, inputs, Folder::Output, &text(inputs, "filename_prefix")),
        "PreviewAudio" => save_audio(place, inputs, Folder::Temp, &temporary_prefix(place)),
        "PreviewAny" => {
            let shown = match inputs.get("source").map_or(Value::Null, Held::shown) {
                structured @ (Value::Array(_) | Value::Object(_)) => pythonic::dumps(&structured),
                other => pythonic::text(&other),
            };
            Ok(Product { slots: Vec::new(), ui: Some(json!({"text": [shown]})) })
        }
        _ => Ok(passed_on(place, inputs)),
    }
}

/// The rule for every other class: each output slot is a mark of its own; an output node shows that it ran.
fn passed_on(place: &Place<'_>, inputs: &Inputs) -> Product {
    let kinds = place.machine.catalog.outputs(place.class);
    let slots = kinds.iter().enumerate().map(|(slot, _)| {
        let mark = mark(&format!("{}#{slot}", place.class), inputs);
        Held::Mark(mark)
    });
    let ui = place.machine.catalog.is_output(place.class).then(|| json!({"text": [place.class]}));
    Product { slots: slots.collect(), ui }
}

fn changed(source: &[Raster], change: impl FnMut(&Raster) -> Raster) -> Held {
    Held::Frames(Arc::new(source.iter().map(change).collect()))
}

/// Width or height 0 keeps the proportions.
fn scaled_size(class: &str, inputs: &Inputs, frame: &Raster) -> (u32, u32) {
    let proportional = |side: u32, other: u32, wanted: u32| {
        let scaled = (u64::from(side) * u64::from(wanted) + u64::from(other) / 2) / u64::from(other.max(1));
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
    };
    if class == "ImageScaleBy" {
        let by = plain(inputs, "scale_by").as_f64().unwrap_or(1.0);
        let side = |side: u32| ((f64::from(side) * by).round() as u32).max(1);
        return (side(frame.width), side(frame.height));
    }
    match (number(inputs, "width"), number(inputs, "height")) {
        (0, 0) => (frame.width, frame.height),
        (0, height) => (proportional(frame.width, frame.height, height), height),
        (width, 0) => (width, proportional(frame.height, frame.width, width)),
        size => size,
    }
}

fn read_image(place: &Place<'_>, inputs: &Inputs) -> Result<(Raster, Option<Vec<u8>>), Raised> {
    let name = text(inputs, "image");
    let path = place.machine.disk.annotated_path(&name).ok_or_else(|| wrong(place.class, "image"))?;
    let bytes = fs::read(&path).map_err(|error| os_error(&error, &path.display().to_string()))?;
    Raster::read(&bytes).ok_or_else(|| {
        let message = format!("cannot identify image file '{}'", path.display());
        Raised::new("PIL.UnidentifiedImageError", message)
    })
}

/// One band of a picture. Of what is opaque, `alpha` gives what is not.
fn load_mask(place: &Place<'_>, inputs: &Inputs) -> Result<Product, Raised> {
    let (frame, alpha) = read_image(place, inputs)?;
    let band = |at: usize| frame.pixels.iter().skip(at).step_by(3).copied().collect::<Vec<u8>>();
    let mask = match text(inputs, "channel").as_str() {
        "red" => band(0),
        "green" => band(1),
        "blue" => band(2),
        // Core gives an empty mask of a size of its own where there is no alpha.
        _ => match alpha {
            Some(alpha) => alpha.into_iter().map(|alpha| 255 - alpha).collect(),
            None => return slot_of(Raster::filled(64, 64, [0; 3])),
        },
    };
    let pixels = mask.into_iter().flat_map(|value| [value; 3]).collect();
    slot_of(Raster { pixels, ..frame })
}

fn slot_of(frame: Raster) -> Result<Product, Raised> {
    Ok(Product { slots: vec![Held::Frames(Arc::new(vec![frame]))], ui: None })
}

fn load_image(place: &Place<'_>, inputs: &Inputs) -> Result<Product, Raised> {
    let (frame, alpha) = read_image(place, inputs)?;
    let hash = blake3::hash(&alpha.unwrap_or_default()).into();
    let mask = Held::Mark(Mark { hash, models: Vec::new() });
    Ok(Product { slots: vec![Held::Frames(Arc::new(vec![frame])), mask], ui: None })
}

fn os_error(error: &std::io::Error, path: &str) -> Raised {
    let (kind, text) = match error.kind() {
        std::io::ErrorKind::NotFound => ("FileNotFoundError", "[Errno 2] No such file or directory"),
        std::io::ErrorKind::StorageFull => ("OSError", "[Errno 28] No space left on device"),
        _ => ("OSError", "[Errno 5] Input/output error"),
    };
    Raised::new(kind, format!("{text}: '{path}'"))
}

/// A preview's prefix: random letters in the real one, the same for all runs of one node object.
fn temporary_prefix(place: &Place<'_>) -> String {
    let base = place.machine.disk.base().display().to_string();
    let hash = blake3::hash(format!("{base}\0{}\0{}", place.node, place.machine.addr).as_bytes());
    let letters: String = hash.as_bytes().iter().take(5).map(|byte| char::from(b'a' + byte % 26)).collect();
    format!("ComfyUI_temp_{letters}")
}

/// The frames to save, as an honest machine has them or as a faulty one claims.
pub(super) fn saved_frames(machine: &Machine, frames: Arc<Vec<Raster>>) -> Arc<Vec<Raster>> {
    if machine.strikes(FaultKind::Black, None) {
        return Arc::new(
            frames.iter().map(|frame| Raster::filled(frame.width, frame.height, [0; 3])).collect(),
        );
    }
    if machine.strikes(FaultKind::Lie, None) {
        let other = |(at, frame): (usize, &Raster)| {
            let seed = blake3::hash(&[b"lie", frame.pixels.as_slice()].concat());
            picture::draw(seed.as_bytes(), at, frame.width, frame.height)
        };
        return Arc::new(frames.iter().enumerate().map(other).collect());
    }
    frames
}

/// Writes one file and gives its entry for the `ui`.
/// How the names begin of files that `--large-mib` makes large.
const LARGE: &str = "large";

/// A MiB that does not compress.
fn noise() -> Vec<u8> {
    let mut piece = vec![0; 1 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut piece);
    piece
}

fn save(
    place: &Place<'_>,
    to: &mut SavePlace,
    folder: Folder,
    extension: &str,
    batch: usize,
    bytes: &[u8],
) -> Result<Value, Raised> {
    let file = to.next(extension, batch);
    let path = to.dir.join(&file);
    let shown = path.display().to_string();
    if place.machine.strikes(FaultKind::DiskFull, None) {
        // What a full disk leaves behind: the file, and nothing in it.
        fs::write(&path, b"").ok();
        return Err(os_error(&std::io::ErrorKind::StorageFull.into(), &shown));
    }
    let kept =
        if place.machine.strikes(FaultKind::Corrupt, None) { &bytes[..bytes.len() / 2] } else { bytes };
    let mut written = File::create(&path).map_err(|error| os_error(&error, &shown))?;
    written.write_all(kept).map_err(|error| os_error(&error, &shown))?;
    if file.starts_with(LARGE) {
        let piece = noise();
        for _ in 0..place.machine.options.large_mib {
            written.write_all(&piece).map_err(|error| os_error(&error, &shown))?;
        }
    }
    Ok(json!({"filename": file, "subfolder": to.subfolder, "type": folder.name()}))
}

fn open_place(
    disk: &Disk,
    folder: Folder,
    prefix: &str,
    first: Option<&Raster>,
) -> Result<SavePlace, Raised> {
    let (width, height) = first.map_or((0, 0), |frame| (frame.width, frame.height));
    disk.place(folder, prefix, width, height).map_err(|reason| Raised::new("Exception", reason))
}

fn save_images(place: &Place<'_>, inputs: &Inputs, folder: Folder, prefix: &str) -> Result<Product, Raised> {
    let frames = saved_frames(place.machine, frames(inputs, "images", place.class)?);
    let mut to = open_place(&place.machine.disk, folder, prefix, frames.first())?;
    let entries: Result<Vec<Value>, Raised> = frames
        .iter()
        .enumerate()
        .map(|(at, frame)| save(place, &mut to, folder, "png", at, &frame.png(place.texts)))
        .collect();
    Ok(Product { slots: Vec::new(), ui: Some(json!({"images": entries?})) })
}

fn save_animation(place: &Place<'_>, inputs: &Inputs) -> Result<Product, Raised> {
    let frames = saved_frames(place.machine, frames(inputs, "images", place.class)?);
    let mut to =
        open_place(&place.machine.disk, Folder::Output, &text(inputs, "filename_prefix"), frames.first())?;
    let fps = plain(inputs, "fps").as_f64().unwrap_or(6.0).max(0.01);
    let bytes = raster::animated_webp(&frames, (1000.0 / fps) as u32);
    let entry = save(place, &mut to, Folder::Output, "webp", 0, &bytes)?;
    Ok(Product { slots: Vec::new(), ui: Some(json!({"images": [entry], "animated": [true]})) })
}

fn save_audio(place: &Place<'_>, inputs: &Inputs, folder: Folder, prefix: &str) -> Result<Product, Raised> {
    let Some(Held::Sound(sound)) = inputs.get("audio") else { return Err(wrong(place.class, "audio")) };
    let mut to = open_place(&place.machine.disk, folder, prefix, None)?;
    let entry = save(place, &mut to, folder, "flac", 0, &sound.flac())?;
    Ok(Product { slots: Vec::new(), ui: Some(json!({"audio": [entry]})) })
}
