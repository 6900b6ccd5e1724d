//! Numbers for people.

use std::time::Duration;

/// `1.64 MiB`, `512 bytes`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) => {
            let hundredths = u128::from(count) * 100 / u128::from(*unit);
            format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
        }
        None => format!("{count} bytes"),
    }
}

/// `1,716,800`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `850 us`, `12.3 ms`, `4.56 s`.
pub(crate) fn duration(duration: Duration) -> String {
    match duration.as_micros() {
        us if us < 1_000 => format!("{us} us"),
        us if us < 1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        us => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_can_read_them() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1_716_800), "1.63 MiB");
        assert_eq!(bytes(u64::MAX), "16777215.99 TiB");
        assert_eq!(grouped(1_716_800), "1,716,800");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(0), "0");
        assert_eq!(duration(Duration::from_micros(999)), "999 us");
        assert_eq!(duration(Duration::from_micros(12_345)), "12.3 ms");
        assert_eq!(duration(Duration::from_millis(61_239)), "61.23 s");
    }
}
