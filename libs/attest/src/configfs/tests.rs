//! Quotes from a directory tree, with a kernel that fills it in.

use std::{cell::Cell, fs};

use super::*;
use crate::snp::REPORT_LEN;

/// What a kernel does besides answering.
#[derive(Clone, Default)]
struct Conduct {
    /// Certificate table that the host hands out.
    table: Option<Vec<u8>>,
    /// Another writer comes between.
    disturb: bool,
    /// The firmware is busy.
    busy: bool,
}

/// A directory whose attributes behave as the kernel's do: writes count, and the report answers the challenge.
struct Kernel {
    dir: Dir,
    conduct: Conduct,
}

impl Kernel {
    fn boot(root: &Path, provider: &str) -> Result<Self, QuoteError> {
        Self::boot_with(root, provider, Conduct::default())
    }

    fn boot_with(root: &Path, provider: &str, conduct: Conduct) -> Result<Self, QuoteError> {
        let dir = Dir::create(root)?;
        let attributes = ["privlevel", "inblob", "outblob"];
        attributes
            .iter()
            .for_each(|name| fs::write(dir.path().join(name), b"").unwrap());
        fs::write(dir.path().join("provider"), format!("{provider}\n")).unwrap();
        fs::write(dir.path().join("generation"), b"0\n").unwrap();
        Ok(Self { dir, conduct })
    }

    fn count_write(&self) {
        let path = self.dir.path().join("generation");
        let generation: u64 = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
        fs::write(path, format!("{}\n", generation + 1)).unwrap();
    }
}

impl Entry for Kernel {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn read(&self, attribute: &str, max: usize) -> io::Result<Vec<u8>> {
        if attribute == "outblob" && self.conduct.busy {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.dir.read(attribute, max)
    }

    fn write(&self, attribute: &str, value: &[u8]) -> io::Result<()> {
        self.dir.write(attribute, value)?;
        self.count_write();
        if attribute == "inblob" {
            let mut report = vec![0; REPORT_LEN];
            report[0x50..0x90].copy_from_slice(value);
            fs::write(self.path().join("outblob"), report)?;
            if let Some(table) = &self.conduct.table {
                fs::write(self.path().join("auxblob"), table)?;
            }
            if self.conduct.disturb {
                self.count_write();
            }
        }
        Ok(())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // In configfs the attributes go with their directory.
        for file in fs::read_dir(self.dir.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
}

fn assert_no_entry_left(root: &Path) {
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
}

#[test]
fn snp_report_answers_the_challenge() {
    let root = tempfile::tempdir().unwrap();
    let privlevel = Cell::new(Vec::new());
    struct Spy<'a>(Kernel, &'a Cell<Vec<u8>>);
    impl Entry for Spy<'_> {
        fn path(&self) -> &Path {
            self.0.path()
        }
        fn read(&self, attribute: &str, max: usize) -> io::Result<Vec<u8>> {
            self.0.read(attribute, max)
        }
        fn write(&self, attribute: &str, value: &[u8]) -> io::Result<()> {
            if attribute == "privlevel" {
                self.1.set(value.to_vec());
            }
            self.0.write(attribute, value)
        }
    }
    let raw = quote_through(&[7; 64], || {
        Ok(Spy(Kernel::boot(root.path(), "sev_guest")?, &privlevel))
    })
    .unwrap();
    assert_eq!(raw.provider, Provider::SevGuest);
    assert_eq!(raw.report[0x50..0x90], [7; 64]);
    assert_eq!(raw.certs, None);
    assert_eq!(privlevel.take(), b"0", "the kernel parses ASCII");
    assert_eq!(raw.into_snp_evidence(&[]).unwrap().chain, Vec::<Vec<u8>>::new());
    assert_no_entry_left(root.path());
}

#[test]
fn certificates_come_along() {
    let root = tempfile::tempdir().unwrap();
    let quote_with = |table: Vec<u8>| {
        let conduct = Conduct {
            table: Some(table),
            ..Conduct::default()
        };
        quote_through(&[0; 64], || {
            Kernel::boot_with(root.path(), "sev_guest", conduct.clone())
        })
        .unwrap()
    };
    assert_eq!(quote_with(Vec::new()).certs, None);
    let raw = quote_with(vec![1; 100]);
    assert_eq!(raw.certs, Some(vec![1; 100]));
    assert_eq!(raw.into_snp_evidence(&[]), Err(CertTableError::Unterminated));
    assert_no_entry_left(root.path());
}

#[test]
fn a_cached_chain_stands_in_for_a_table_that_is_of_no_use() {
    let raw = |certs| RawEvidence {
        provider: Provider::SevGuest,
        report: vec![0; REPORT_LEN],
        certs,
    };
    let cached = vec![vec![1], vec![2], vec![3]];
    for useless in [None, Some(vec![1; 100])] {
        assert_eq!(raw(useless).into_snp_evidence(&cached).unwrap().chain, cached);
    }
}

#[test]
fn tdx_sets_no_privilege_level() {
    let root = tempfile::tempdir().unwrap();
    let raw = quote_through(&[1; 64], || Kernel::boot(root.path(), "tdx_guest")).unwrap();
    assert_eq!(raw.provider, Provider::TdxGuest);
    assert_no_entry_left(root.path());
}

#[test]
fn another_writer_means_another_entry() {
    let root = tempfile::tempdir().unwrap();
    let mut entries = 0;
    let raw = quote_through(&[1; 64], || {
        entries += 1;
        let conduct = Conduct {
            table: None,
            disturb: entries == 1,
            busy: entries == 2,
        };
        Kernel::boot_with(root.path(), "sev_guest", conduct)
    });
    assert!(raw.is_ok());
    assert_eq!(entries, 3);
    let disturbed = Conduct {
        disturb: true,
        ..Conduct::default()
    };
    let always = quote_through(&[1; 64], || {
        Kernel::boot_with(root.path(), "sev_guest", disturbed.clone())
    });
    assert!(matches!(always, Err(QuoteError::Disturbed)));
    assert_no_entry_left(root.path());
}

#[test]
fn what_cannot_quote_says_so() {
    let root = tempfile::tempdir().unwrap();
    let absent = root.path().join("absent");
    assert!(matches!(quote(&absent, &[0; 64]), Err(QuoteError::Create { .. })));
    let no_attributes = quote(root.path(), &[0; 64]);
    assert!(matches!(
        no_attributes,
        Err(QuoteError::Attribute {
            what: "reading the provider",
            ..
        })
    ));
    let unknown = quote_through(&[0; 64], || Kernel::boot(root.path(), "arm_cca_guest"));
    assert!(matches!(unknown, Err(QuoteError::Provider)));
    assert_no_entry_left(root.path());
}

#[test]
fn attributes_are_bounded() {
    let root = tempfile::tempdir().unwrap();
    let conduct = Conduct {
        table: Some(vec![0; MAX_TABLE + 1]),
        ..Conduct::default()
    };
    let large = quote_through(&[0; 64], || {
        Kernel::boot_with(root.path(), "sev_guest", conduct.clone())
    });
    assert!(matches!(
        large,
        Err(QuoteError::Attribute {
            what: "reading the certificates",
            ..
        })
    ));
}
