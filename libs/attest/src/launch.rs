//! One value for what a TDX guest was launched from.

use ring::digest::{Context, SHA384};

/// The launch digest of a TDX guest: SHA-384 of `cella td launch digest 1`, a zero byte, MRTD, RTMR1, RTMR2 and RTMR3.
///
/// It stands wherever SEV-SNP's launch digest does: in an owner's approval, in an audit log, in a token. RTMR0 is not in it: it changes with
/// QEMU's version, memory and devices, and is a condition of its own in a rule.
pub fn td_launch_digest(mrtd: &[u8; 48], rtmr_1_to_3: [&[u8; 48]; 3]) -> [u8; 48] {
    let mut context = Context::new(&SHA384);
    context.update(b"cella td launch digest 1\0");
    context.update(mrtd);
    rtmr_1_to_3.into_iter().for_each(|register| context.update(register));
    let mut digest = [0; 48];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_register_counts_in_its_place() {
        let known = "e880e8fccc2c8435077c3aa83187216ee87f642886296c4dc7b3e1a05a07ce43e2eda0bddf7fef93580766206d49a968";
        let digest = td_launch_digest(&[1; 48], [&[2; 48], &[3; 48], &[0; 48]]);
        assert_eq!(hex::encode(digest), known);
        for (mrtd, registers) in [
            ([2; 48], [&[2; 48], &[3; 48], &[0; 48]]),
            ([1; 48], [&[3; 48], &[2; 48], &[0; 48]]),
            ([1; 48], [&[2; 48], &[3; 48], &[1; 48]]),
        ] {
            assert_ne!(td_launch_digest(&mrtd, registers), digest);
        }
    }
}
