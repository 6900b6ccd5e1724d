//! What boots: all of it is measured, none of it comes from an annotation.

use super::Switch;
use super::opts::Opts;

/// `-kernel`, a path passed raw.
#[derive(Clone, Debug)]
pub struct Kernel(pub String);

/// `-initrd`, a path passed raw.
#[derive(Clone, Debug)]
pub struct Initrd(pub String);

/// `-append`, the kernel's command line, passed raw.
#[derive(Clone, Debug)]
pub struct Append(pub String);

/// `-bios`, the firmware's path, passed raw.
#[derive(Clone, Debug)]
pub struct Bios(pub String);

/// `-device loader`, which puts the table of kernel hashes where the firmware looks for it: what QEMU itself does for an SNP guest.
#[derive(Clone, Debug)]
pub struct HashTableLoader {
    /// File with the table.
    pub path: String,
    /// Guest-physical address.
    pub gpa: u64,
}

/// `-L`, a directory with QEMU's own firmware files, passed raw.
#[derive(Clone, Debug)]
pub struct DataDir(pub String);

impl Switch for Kernel {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-kernel".into(), self.0.clone()]);
    }
}

impl Switch for Initrd {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-initrd".into(), self.0.clone()]);
    }
}

impl Switch for Append {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-append".into(), self.0.clone()]);
    }
}

impl Switch for Bios {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-bios".into(), self.0.clone()]);
    }
}

impl Switch for HashTableLoader {
    fn render(&self, line: &mut Vec<String>) {
        let options = Opts::of("loader")
            .with("file", &self.path)
            .with("addr", format_args!("{:#x}", self.gpa))
            .with("force-raw", "on");
        line.extend(["-device".into(), options.into_string()]);
    }
}

impl Switch for DataDir {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-L".into(), self.0.clone()]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rendered;
    use super::*;

    #[test]
    fn exact_strings() {
        assert_eq!(rendered(&Kernel("/g/vmlinuz".into())), "-kernel /g/vmlinuz");
        assert_eq!(rendered(&Initrd("/g/initrd".into())), "-initrd /g/initrd");
        assert_eq!(rendered(&Bios("/o/OVMF.amdsev.fd".into())), "-bios /o/OVMF.amdsev.fd");
        assert_eq!(rendered(&DataDir("/q/seabios".into())), "-L /q/seabios");
        let table = HashTableLoader {
            path: "/r/hashes.bin".into(),
            gpa: 0x81_0c00,
        };
        assert_eq!(
            rendered(&table),
            "-device loader,file=/r/hashes.bin,addr=0x810c00,force-raw=on"
        );
    }

    #[test]
    fn raw_arguments_keep_their_commas() {
        assert_eq!(rendered(&Kernel("/a,b/vmlinuz".into())), "-kernel /a,b/vmlinuz");
        let mut line = Vec::new();
        Append("console=ttyS0,115200 quiet".into()).render(&mut line);
        assert_eq!(line, ["-append", "console=ttyS0,115200 quiet"]);
    }
}
