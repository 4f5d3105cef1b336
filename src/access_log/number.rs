//! Writes numbers and times without `format!`.

use std::time::Duration;

/// A whole number.
pub(super) fn whole(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; DIGITS_MAX];
    let mut begin = DIGITS_MAX;
    loop {
        begin -= 1;
        digits[begin] = digit(number);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[begin..]);
}

/// A number with leading zeros, of `N` digits; more are cut.
pub(super) fn padded<const N: usize>(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; N];
    for place in digits.iter_mut().rev() {
        *place = digit(number);
        number /= 10;
    }
    out.extend_from_slice(&digits);
}

/// Seconds with six decimals.
pub(super) fn seconds(time: Duration, out: &mut Vec<u8>) {
    whole(time.as_secs(), out);
    out.push(b'.');
    padded::<6>(u64::from(time.subsec_micros()), out);
}

/// A number's last digit.
fn digit(number: u64) -> u8 {
    b"0123456789"[(number % 10) as usize]
}

/// The digits of the largest number.
const DIGITS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_format_would() {
        for number in [0, 1, 9, 10, 99, 100, 65_535, 1_000_000, u64::MAX] {
            let (mut out, mut cut) = (Vec::new(), Vec::new());
            whole(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
            padded::<3>(number, &mut cut);
            assert_eq!(cut, format!("{:03}", number % 1000).as_bytes());
        }
        for micros in [0, 1, 999_999, 1_000_000, 12_345_678] {
            let (mut out, time) = (Vec::new(), Duration::from_micros(micros));
            seconds(time, &mut out);
            assert_eq!(out, format!("{:.6}", time.as_secs_f64()).as_bytes());
        }
    }
}
