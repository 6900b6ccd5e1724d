//! How the numbers of a matrix lie in a file: as they are, or in blocks of 32 with a scale.

use super::tensor::Block;

/// How a matrix's numbers are stored. Vectors are always F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Storage {
    /// 32-bit floating point.
    F32,
    /// Blocks of 32: a 16-bit scale and 8 bits for each number. GGUF only.
    #[value(name = "q8_0")]
    Q8_0,
    /// Blocks of 32: a 16-bit scale and 4 bits for each number. GGUF only.
    #[value(name = "q4_0")]
    Q4_0,
}

impl Storage {
    /// GGUF's code of the tensor's type.
    pub(super) fn tensor_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
        }
    }

    /// GGUF's code of a file whose matrices are stored so.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
        }
    }

    /// Bytes of a block of 32 numbers.
    pub(super) fn block_bytes(self) -> u64 {
        match self {
            Self::F32 => 128,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
        }
    }

    pub(super) fn encode(self, block: &Block, out: &mut Vec<u8>) {
        match self {
            Self::F32 => block.iter().for_each(|number| out.extend(number.to_le_bytes())),
            Self::Q8_0 => {
                let scale = largest(block).abs() / 127.0;
                out.extend(half(scale).to_le_bytes());
                out.extend(block.iter().map(|number| nearest(divided(*number, scale))));
            }
            Self::Q4_0 => {
                // The number farthest from 0 becomes the lowest step, of which there is one more than of the others.
                let scale = largest(block) / -8.0;
                out.extend(half(scale).to_le_bytes());
                let step = |number: &f32| nearest((divided(*number, scale) + 8.0).min(15.0));
                let (low, high) = block.split_at(block.len() / 2);
                out.extend(low.iter().zip(high).map(|(low, high)| step(low) | step(high) << 4));
            }
        }
    }
}

/// The number farthest from 0.
fn largest(block: &Block) -> f32 {
    let farther = |found: f32, number: &f32| if number.abs() > found.abs() { *number } else { found };
    block.iter().fold(0.0, farther)
}

fn divided(number: f32, scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { number / scale }
}

/// The nearest whole number of -128 to 127, in two's complement: at 1.5 · 2²³ the steps of an f32 are 1.
fn nearest(number: f32) -> u8 {
    let [low, ..] = (number + 12_582_912.0).to_bits().to_le_bytes();
    low
}

/// IEEE 754 binary16, rounded to nearest even. For scales: far below its largest number, and often below its smallest normal one.
fn half(number: f32) -> u16 {
    let bits = number.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let rounded = |value: u32, shift: u32| (value + (1 << (shift - 1)) - 1 + (value >> shift & 1)) >> shift;
    let exponent = magnitude >> 23;
    let half = match 126_u32.checked_sub(exponent) {
        Some(shift) if shift > 24 => 0,
        Some(shift) if shift >= 14 => rounded(magnitude & 0x007f_ffff | 0x0080_0000, shift),
        _ => rounded(magnitude, 13) - (112 << 10),
    };
    u16::try_from(sign | half).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(storage: Storage, block: &Block) -> Vec<u8> {
        let mut out = Vec::new();
        storage.encode(block, &mut out);
        assert_eq!(out.len() as u64, storage.block_bytes());
        out
    }

    #[test]
    fn halves_are_those_of_ieee_754() {
        for (number, expected) in [
            (0.0, 0x0000),
            (1.0, 0x3c00),
            (-0.125, 0xb000),
            (65504.0, 0x7bff),
            (6.103_515_6e-5, 0x0400),
            (6.097_555e-5, 0x03ff),
            (5.960_464_5e-8, 0x0001),
            (2.980_232_2e-8, 0x0000),
            (2.1e-5, 0x0160),
            (1e-9, 0x0000),
            // Halfway between two: the even one.
            (1.000_488_3, 0x3c00),
            (1.001_464_8, 0x3c02),
        ] {
            assert_eq!(half(number), expected, "{number}");
        }
    }

    #[test]
    fn blocks_have_a_scale_and_steps() {
        let mut block = [0.0; 32];
        (block[0], block[1], block[31]) = (-2.0, 1.0, 2.0);
        let q8 = encoded(Storage::Q8_0, &block);
        assert_eq!(q8[..2], half(2.0 / 127.0).to_le_bytes());
        // 63.5 goes to the even one.
        assert_eq!((q8[2], q8[3], q8[4], q8[33]), (129, 64, 0, 127));
        let q4 = encoded(Storage::Q4_0, &block);
        assert_eq!(q4[..2], half(0.25).to_le_bytes());
        // -2 is step 0, 1 is 12, 0 is 8, and 2 would be 16: the last there is is 15.
        assert_eq!((q4[2], q4[3], q4[17]), (0x80, 0x8c, 0xf8));
        assert_eq!(encoded(Storage::Q4_0, &[0.0; 32])[..3], [0, 0x80, 0x88]);
        assert_eq!(encoded(Storage::F32, &block)[..4], (-2.0_f32).to_le_bytes());
    }
}
