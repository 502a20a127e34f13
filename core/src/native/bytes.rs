//! Fields at fixed places of a layout.

/// The `N` bytes at `at`; zeros where the layout is shorter, which no caller's is.
pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

pub(crate) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(get(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

/// The first `end` bytes: of a message, as far as a hash covers it.
pub(crate) fn until(bytes: &[u8], end: usize) -> &[u8] {
    bytes.get(..end).unwrap_or(bytes)
}

/// Writes a field.
pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    crate::storage::copy(bytes.get_mut(at..).unwrap_or_default(), field);
}

/// Whether the `len` bytes at `at` are zero.
pub(crate) fn is_zero(bytes: &[u8], at: usize, len: usize) -> bool {
    bytes.get(at..).and_then(|rest| rest.get(..len)).is_some_and(all_zero)
}

/// Whether all of them are zero.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
