//! A small assembler for the kernel's BPF machine: the instructions that a packet filter of ours is made of, and labels.
//!
//! Encodings are those of `Documentation/bpf/standardization/instruction-set.rst`.

use std::collections::BTreeMap;

/// One instruction as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Insn {
    pub(super) code: u8,
    /// Destination in the lower half, source in the upper.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// A register; `FRAME` points behind the program's stack and is read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(u8);

pub(super) const R0: Register = Register(0);
pub(super) const R1: Register = Register(1);
pub(super) const R2: Register = Register(2);
pub(super) const R3: Register = Register(3);
pub(super) const R4: Register = Register(4);
pub(super) const R6: Register = Register(6);
pub(super) const R7: Register = Register(7);
pub(super) const R8: Register = Register(8);
pub(super) const R9: Register = Register(9);
pub(super) const FRAME: Register = Register(10);

/// How much is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Width {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

/// A place that is jumped to; always forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The program is longer than a jump can reach.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the filter of the policy's [network] has {length} instructions; a jump reaches over {}",
    i16::MAX
)]
pub struct TooLong {
    length: usize,
}

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    program: Vec<Insn>,
    /// Where each label is, once it is known.
    places: Vec<Option<usize>>,
    /// Jumps whose offset is still to be filled in.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len().saturating_sub(1))
    }

    /// The label is here.
    pub(super) fn bind(&mut self, label: Label) {
        let here = self.program.len();
        if let Some(place) = self.places.get_mut(label.0) {
            *place = Some(here);
        }
    }

    /// `to = from`, all 64 bits.
    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.push(0xbf, to, from, 0, 0);
    }

    /// `to = value`.
    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.push(0xb7, to, R0, 0, value);
    }

    /// `to += value`, all 64 bits.
    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.push(0x07, to, R0, 0, value);
    }

    /// `to &= value`, 32 bits; the upper half becomes 0.
    pub(super) fn and(&mut self, to: Register, value: u32) {
        self.push(0x54, to, R0, 0, value.cast_signed());
    }

    /// `to <<= bits`, 32 bits.
    pub(super) fn shift_left(&mut self, to: Register, bits: i32) {
        self.push(0x64, to, R0, 0, bits);
    }

    /// `to = *(from + offset)`.
    pub(super) fn load(&mut self, width: Width, to: Register, from: Register, offset: i16) {
        self.push(0x61 | width as u8, to, from, offset, 0);
    }

    /// `*(FRAME + offset) = value`, one word.
    pub(super) fn store(&mut self, offset: i16, value: i32) {
        self.push(0x62, FRAME, R0, offset, value);
    }

    /// `*(FRAME + offset) = from`, one word.
    pub(super) fn store_register(&mut self, offset: i16, from: Register) {
        self.push(0x63, FRAME, from, offset, 0);
    }

    /// `*to += by` as one step, 64 bits.
    pub(super) fn add_to_memory(&mut self, to: Register, by: Register) {
        self.push(0xdb, to, by, 0, 0);
    }

    /// `to` = the map that `descriptor` stands for.
    pub(super) fn map(&mut self, to: Register, descriptor: i32) {
        self.push(0x18, to, R1, 0, descriptor);
        self.program.push(Insn::default());
    }

    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.program.len(), to));
        self.push(JUMP, R0, R0, 0, 0);
    }

    /// Jumps if the lower half of `register` is `value`.
    pub(super) fn jump_if(&mut self, register: Register, value: u32, to: Label) {
        self.jumps.push((self.program.len(), to));
        self.push(0x16, register, R0, 0, value.cast_signed());
    }

    /// Jumps if the lower half of `register` is not `value`.
    pub(super) fn jump_unless(&mut self, register: Register, value: u32, to: Label) {
        self.jumps.push((self.program.len(), to));
        self.push(0x56, register, R0, 0, value.cast_signed());
    }

    /// Jumps if the lower half of `register`, without sign, is below `value`.
    pub(super) fn jump_if_below(&mut self, register: Register, value: u32, to: Label) {
        self.jumps.push((self.program.len(), to));
        self.push(0xa6, register, R0, 0, value.cast_signed());
    }

    /// Jumps if `register` is no pointer.
    pub(super) fn jump_if_null(&mut self, register: Register, to: Label) {
        self.jumps.push((self.program.len(), to));
        self.push(0x15, register, R0, 0, 0);
    }

    /// Calls a helper of the kernel: R1 to R5 in, R0 out, R1 to R5 lost.
    pub(super) fn call(&mut self, helper: i32) {
        self.push(0x85, R0, R0, 0, helper);
    }

    /// Ends with `value`.
    pub(super) fn end(&mut self, value: i32) {
        self.set(R0, value);
        self.push(EXIT, R0, R0, 0, 0);
    }

    /// The program, every jump with its offset. What nothing leads to is left out: the kernel takes no such program.
    pub(super) fn finish(self) -> Result<Vec<Insn>, TooLong> {
        let length = self.program.len();
        // Every label is bound by whoever made it.
        let target = |label: Label| self.places.get(label.0).copied().flatten().unwrap_or(length);
        let jumps: BTreeMap<usize, usize> = self.jumps.iter().map(|(from, label)| (*from, target(*label))).collect();
        let reached = reached(&self.program, &jumps);
        // Where each instruction will be.
        let mut place = 0_usize;
        let places: Vec<usize> = reached
            .iter()
            .map(|is_reached| {
                let here = place;
                place = place.saturating_add(usize::from(*is_reached));
                here
            })
            .collect();
        let mut program = Vec::with_capacity(place);
        for (index, insn) in self.program.into_iter().enumerate() {
            if !reached.get(index).copied().unwrap_or(false) {
                continue;
            }
            let mut insn = insn;
            if let Some(to) = jumps.get(&index) {
                let to = places.get(*to).copied().unwrap_or(place);
                let distance = to.saturating_sub(program.len().saturating_add(1));
                insn.offset = i16::try_from(distance).map_err(|_| TooLong { length: place })?;
            }
            program.push(insn);
        }
        Ok(program)
    }

    fn push(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        self.program.push(Insn {
            code,
            registers: to.0 | (from.0 << 4),
            offset,
            immediate,
        });
    }
}

/// Which instructions something leads to. All jumps go forward, so one walk is enough.
fn reached(program: &[Insn], jumps: &BTreeMap<usize, usize>) -> Vec<bool> {
    let mut reached = vec![false; program.len()];
    let mark = |reached: &mut Vec<bool>, index: usize| {
        if let Some(one) = reached.get_mut(index) {
            *one = true;
        }
    };
    mark(&mut reached, 0);
    for (index, insn) in program.iter().enumerate() {
        if !reached.get(index).copied().unwrap_or(false) {
            continue;
        }
        if let Some(to) = jumps.get(&index) {
            mark(&mut reached, *to);
        }
        if !matches!(insn.code, JUMP | EXIT) {
            mark(&mut reached, index.saturating_add(1));
        }
    }
    reached
}

const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_count_from_the_next_instruction() {
        let mut assembler = Assembler::default();
        let end = assembler.label();
        assembler.jump_if(R2, 0xffff_ffff, end);
        assembler.map(R1, 7);
        assembler.bind(end);
        assembler.end(1);
        let program = assembler.finish().unwrap();
        assert_eq!(program.len(), 5);
        assert_eq!(
            (program[0].code, program[0].offset, program[0].immediate),
            (0x16, 2, -1)
        );
        assert_eq!((program[1].registers, program[1].immediate), (0x11, 7));
    }

    #[test]
    fn a_program_that_jumps_cannot_cross_is_an_error() {
        let mut assembler = Assembler::default();
        let end = assembler.label();
        assembler.jump_if(R0, 1, end);
        for _ in 0..=i16::MAX {
            assembler.set(R0, 0);
        }
        assembler.bind(end);
        assembler.end(0);
        assert_eq!(assembler.finish(), Err(TooLong { length: 32771 }));
    }

    #[test]
    fn what_nothing_leads_to_is_left_out() {
        let mut assembler = Assembler::default();
        let end = assembler.label();
        assembler.jump(end);
        assembler.set(R1, 7);
        assembler.jump(end);
        assembler.bind(end);
        assembler.end(1);
        let program = assembler.finish().unwrap();
        assert_eq!((program.len(), program[0].code, program[0].offset), (3, JUMP, 0));
    }
}
