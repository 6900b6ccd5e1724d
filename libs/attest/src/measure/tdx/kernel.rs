//! What QEMU writes into a kernel's header before it hands the kernel to the firmware (Linux x86 boot protocol; QEMU `x86_load_linux`).

/// What QEMU keeps free below the end of memory for ACPI tables, on q35.
const ACPI_DATA: u64 = 0x2_8000;
/// Memory below 4 GiB on q35, where the guest has more than that of it.
const LOW_MEMORY: u64 = 0x8000_0000;
/// From how much memory on that holds.
const LOW_MEMORY_FROM: u64 = 0xb000_0000;
/// Where the boot parameters and the command line go, for a kernel that is loaded high.
const REAL_MODE: u32 = 0x1_0000;
const CMDLINE: u32 = 0x2_0000;
/// Protocol 2.12, the first whose flags say that an initrd may lie anywhere. All kernels since Linux 3.8.
const PROTOCOL: u16 = 0x20c;

/// Patches a bzImage. Only what today's kernels are is taken.
pub(super) fn patch(kernel: &mut [u8], initrd_len: usize, memory_mib: u64) -> Result<(), &'static str> {
    let field = |at: usize| {
        kernel
            .get(at..at + 2)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_le_bytes)
    };
    if kernel.get(0x202..0x206) != Some(b"HdrS") {
        return Err("is no bzImage");
    }
    let (protocol, load_flags) = (field(0x206), field(0x211));
    if protocol.is_none_or(|protocol| protocol < PROTOCOL) || load_flags.is_none_or(|flags| flags & 1 == 0) {
        return Err("has a boot protocol below 2.12, or is not loaded high");
    }
    let above_4g = field(0x236).is_some_and(|flags| flags & 0x40 != 0);
    let initrd_len = u32::try_from(initrd_len).map_err(|_| "is given an initrd of more than 4 GiB")?;
    let initrd = initrd_address(initrd_len, memory_mib, above_4g)?;

    let loader_and_flags = kernel.get(0x211).map_or(0, |flags| flags | 0x80);
    write(kernel, 0x210, &[0xb0, loader_and_flags]);
    if initrd_len > 0 {
        write(kernel, 0x218, &initrd.to_le_bytes());
        write(kernel, 0x21c, &initrd_len.to_le_bytes());
    }
    write(kernel, 0x224, &(CMDLINE - REAL_MODE - 0x200).to_le_bytes());
    write(kernel, 0x228, &CMDLINE.to_le_bytes());
    Ok(())
}

/// As high below 4 GiB as kernel and memory allow, at the start of a page.
fn initrd_address(len: u32, memory_mib: u64, above_4g: bool) -> Result<u32, &'static str> {
    let memory = memory_mib
        .checked_mul(1 << 20)
        .ok_or("is given more memory than there is")?;
    let below_4g = if memory >= LOW_MEMORY_FROM { LOW_MEMORY } else { memory };
    let highest = if above_4g { u64::from(u32::MAX) } else { 0x37ff_ffff };
    let end = below_4g.checked_sub(ACPI_DATA).ok_or("is given too little memory")?;
    let highest = if highest >= end { end - 1 } else { highest };
    let start = highest
        .checked_sub(u64::from(len))
        .ok_or("is given an initrd larger than its memory")?;
    u32::try_from(start & !0xfff).map_err(|_| "is given more memory than there is")
}

fn write(kernel: &mut [u8], at: usize, bytes: &[u8]) {
    kernel.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Vec<u8> {
        let mut kernel = vec![0; 0x1000];
        write(&mut kernel, 0x202, b"HdrS");
        write(&mut kernel, 0x206, &0x20fu16.to_le_bytes());
        kernel[0x211] = 1;
        kernel[0x236] = 0x7f;
        kernel
    }

    fn at(kernel: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(kernel[offset..offset + 4].try_into().unwrap())
    }

    #[test]
    fn the_fields_that_qemu_fills_in() {
        let mut patched = kernel();
        patch(&mut patched, 0x10_0000, 4096).unwrap();
        assert_eq!((patched[0x210], patched[0x211]), (0xb0, 0x81));
        assert_eq!((at(&patched, 0x224), at(&patched, 0x228)), (0xfe00, 0x2_0000));
        assert_eq!(at(&patched, 0x21c), 0x10_0000);
        assert_eq!(at(&patched, 0x218), (0x8000_0000 - 0x2_8000 - 1 - 0x10_0000) & !0xfff);
        let mut without = kernel();
        patch(&mut without, 0, 4096).unwrap();
        assert_eq!((at(&without, 0x218), at(&without, 0x21c)), (0, 0));
    }

    #[test]
    fn memory_moves_the_initrd_below_its_bound_only() {
        let address = |memory_mib| initrd_address(0x10_0000, memory_mib, true).unwrap();
        assert_ne!(address(1024), address(2000));
        assert_eq!(address(2048), address(2816), "2 GiB, and from 2.75 GiB on");
        assert_eq!(address(2816), address(1 << 20));
        assert_ne!(address(2048), address(2047));
        assert_eq!(
            initrd_address(0x10_0000, 4096, false),
            Ok((0x37ff_ffff - 0x10_0000) & !0xfff)
        );
    }

    #[test]
    fn other_kernels_are_refused() {
        let change = |at: usize, byte: u8| {
            let mut changed = kernel();
            changed[at] = byte;
            patch(&mut changed, 1, 1024)
        };
        assert!(change(0x202, b'h').is_err());
        assert!(change(0x206, 0x0b).is_err(), "protocol 2.11");
        assert!(change(0x211, 0).is_err(), "loaded low");
        assert!(patch(&mut [0; 0x205], 1, 1024).is_err());
        assert!(patch(&mut kernel(), 1 << 31, 1024).is_err());
        assert!(patch(&mut kernel(), 1, 0).is_err());
        assert!(patch(&mut kernel(), 1, u64::MAX).is_err());
    }
}
