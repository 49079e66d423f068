//! PURE: the pictures this machine "renders": a landscape at some hour of the day, drawn from a hash alone.
//!
//! Only additions, multiplications and comparisons of `f32` are used, so that every machine draws the same pixels.

use super::raster::Raster;

/// What a picture is made from; two equal seeds draw equal pictures.
pub(super) type Seed = [u8; 32];

/// Draws one frame. Later frames of the same seed drift slowly, as an animation would.
pub(super) fn draw(seed: &Seed, frame: usize, width: u32, height: u32) -> Raster {
    let mut dice = Dice::new(seed);
    // From teal over blue and violet to rose; green skies please nobody.
    let hue = 0.50 + 0.45 * dice.unit();
    let (day, horizon) = (dice.unit(), 0.45 + 0.25 * dice.unit());
    let zenith = colour(hue, 0.45, 0.16 + 0.28 * day);
    let glow = colour(0.96 + 0.16 * dice.unit(), 0.70, 0.62 + 0.14 * day);
    let sun = colour(0.08 + 0.08 * dice.unit(), 0.80, 0.84);
    let (sun_x, sun_y, sun_r) =
        (0.15 + 0.7 * dice.unit(), horizon - 0.05 - 0.25 * dice.unit(), 0.05 + 0.06 * dice.unit());
    let layers: Vec<Layer> = (0..4).map(|depth| Layer::new(&mut dice, depth, hue, horizon, day)).collect();
    let grain = dice.word();

    let drift = frame as f32 * 0.012;
    let aspect = width as f32 / height.max(1) as f32;
    let ridges: Vec<Vec<f32>> = layers.iter().map(|layer| layer.ridge(width, aspect, drift)).collect();
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        let v = (y as f32 + 0.5) / height as f32;
        let sky = mix(zenith, glow, smooth((v / horizon).min(1.0)));
        for x in 0..width {
            let u = (x as f32 + 0.5) / width as f32;
            let (dx, dy) = ((u - sun_x - drift * 0.2) * aspect, v - sun_y);
            let halo = (1.0 - (dx * dx + dy * dy) / (sun_r * sun_r * 9.0)).max(0.0);
            let disc = if dx * dx + dy * dy < sun_r * sun_r { 1.0 } else { 0.45 * halo * halo };
            let mut shade = mix(sky, sun, disc);
            for (layer, ridge) in layers.iter().zip(&ridges) {
                let top = ridge[x as usize];
                if v > top {
                    shade = mix(layer.colour, layer.foot, ((v - top) * 2.5).min(1.0));
                }
            }
            let noise = (scatter(grain ^ (x << 16) ^ y ^ (frame as u32).rotate_left(8)) - 0.5) * 0.03;
            pixels.extend(shade.map(|channel| byte(channel + noise)));
        }
    }
    Raster { width, height, pixels }
}

/// The picture as a sampler sees it on its way: noise first, the picture last. `clarity` runs from 0 to 1.
pub(super) fn emerging(seed: &Seed, clarity: f32, width: u32, height: u32) -> Raster {
    let mut raster = draw(seed, 0, width, height);
    let salt = u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]);
    for (at, pixel) in raster.pixels.iter_mut().enumerate() {
        let noise = scatter(salt.wrapping_add(at as u32));
        *pixel = byte(f32::from(*pixel) / 255.0 * clarity + noise * (1.0 - clarity));
    }
    raster
}

struct Layer {
    colour: [f32; 3],
    foot: [f32; 3],
    base: f32,
    swing: f32,
    salt: u32,
    scale: f32,
    speed: f32,
}

impl Layer {
    /// `depth` 0 is the farthest.
    fn new(dice: &mut Dice, depth: u8, hue: f32, horizon: f32, day: f32) -> Self {
        let near = f32::from(depth) / 3.0;
        let light = (0.50 - 0.36 * near) * (0.55 + 0.45 * day);
        Self {
            colour: colour(hue + 0.04 * near, 0.30 + 0.20 * near, light),
            foot: colour(hue + 0.10, 0.30, light + 0.08),
            base: horizon + (1.0 - horizon) * (0.05 + 0.68 * near),
            swing: 0.26 - 0.14 * near,
            salt: dice.word(),
            scale: 2.0 + 1.5 * near + dice.unit(),
            speed: 0.3 + 1.7 * near,
        }
    }

    /// The height of its ridge above each column, 0 at the top of the picture.
    fn ridge(&self, width: u32, aspect: f32, drift: f32) -> Vec<f32> {
        let column = |x: u32| {
            let at = (x as f32 + 0.5) / width as f32 * aspect * self.scale + drift * self.speed;
            let (mut height, mut weight, mut at) = (0.0, 0.5, at);
            for octave in 0..4 {
                height += weight * lattice(self.salt ^ octave, at);
                (weight, at) = (weight * 0.5, at * 2.03);
            }
            self.base - self.swing * (height - 0.3)
        };
        (0..width).map(column).collect()
    }
}

/// Smooth noise along a line, 0 to 1.
fn lattice(salt: u32, at: f32) -> f32 {
    let cell = at.floor();
    let corner = |n: f32| scatter(salt.wrapping_add((n as i64 as u32).wrapping_mul(0x9e37_79b9)));
    let (left, right) = (corner(cell), corner(cell + 1.0));
    left + (right - left) * smooth(at - cell)
}

fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

/// A 32-bit mix (the finaliser of MurmurHash3), as a number from 0 to 1.
fn scatter(mut word: u32) -> f32 {
    word ^= word >> 16;
    word = word.wrapping_mul(0x85eb_ca6b);
    word ^= word >> 13;
    word = word.wrapping_mul(0xc2b2_ae35);
    word ^= word >> 16;
    (word >> 8) as f32 / 16_777_216.0
}

fn mix(from: [f32; 3], to: [f32; 3], t: f32) -> [f32; 3] {
    std::array::from_fn(|channel| from[channel] + (to[channel] - from[channel]) * t)
}

fn byte(channel: f32) -> u8 {
    (channel.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
}

/// Hue, saturation and lightness to red, green and blue.
fn colour(hue: f32, saturation: f32, lightness: f32) -> [f32; 3] {
    let chroma = (1.0 - (2.0 * lightness - 1.0).abs()) * saturation;
    [0.0, 2.0 / 3.0, 1.0 / 3.0].map(|shift| {
        let turn = hue + shift;
        let angle = (turn - turn.floor()) * 6.0;
        let ramp = ((angle - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        lightness + chroma * (ramp - 0.5)
    })
}

/// Numbers drawn from a hash.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: &Seed) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(seed);
        Self(hasher.finalize_xof())
    }

    fn word(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn unit(&mut self) -> f32 {
        (self.word() >> 8) as f32 / 16_777_216.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_pictures_and_others_differ() {
        let picture = draw(&[7; 32], 0, 48, 32);
        assert_eq!(picture.pixels, draw(&[7; 32], 0, 48, 32).pixels);
        assert_ne!(picture.pixels, draw(&[8; 32], 0, 48, 32).pixels);
        assert_ne!(picture.pixels, draw(&[7; 32], 1, 48, 32).pixels);
        // Pinned: two machines of a pool must agree about it.
        assert_eq!(blake3::hash(&picture.pixels).to_hex()[..16], *"f7c63a53449895c8");
    }
}
