//! What the targets share.

/// `good` with bytes of it changed: each three bytes of `patches` are a place (u16, little endian, modulo the length) and a byte that is
/// put there.
pub fn patched(good: &[u8], patches: &[u8]) -> Vec<u8> {
    let mut changed = good.to_vec();
    for patch in patches.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([patch[0], patch[1]])) % changed.len().max(1);
        if let Some(byte) = changed.get_mut(place) {
            *byte = patch[2];
        }
    }
    changed
}
