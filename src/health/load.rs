//! How loaded a backend says it is, and what share of its weight that leaves it.
//!
//! Pure. A share is in percent and moves in steps, so that noise in what a backend tells makes no
//! snapshot for each probe. `health` calls it with the `X-Load` of a probe's answer.

/// The share of its weight that this `X-Load` leaves a backend, in percent, `SHARE_MIN` to 100;
/// `None` when it is no number from 0.0 (idle) to 1.0 (full).
#[must_use]
pub fn share_of(load: &str) -> Option<u32> {
    let load = load.trim_matches([' ', '\t']);
    // `parse` alone would take an exponent, a sign, and words such as `nan`.
    if !load.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let load: f64 = load.parse().ok()?;
    let is_load = (0.0..=1.0).contains(&load);
    is_load.then(|| (((1.0 - load) * 100.0).round() as u32).max(SHARE_MIN))
}

/// The share in force after a new one: the nearest step, and the one before while the new one lies
/// less than a step from it.
#[must_use]
pub fn settled(before: u32, share: u32) -> u32 {
    if share.abs_diff(before) < STEP { before } else { (share + STEP / 2) / STEP * STEP }
}

/// The share of a backend that is full: little, so that it is seen to recover by requests too.
pub const SHARE_MIN: u32 = 5;
/// The share of a backend without load, in percent.
pub const SHARE_FULL: u32 = 100;
/// What a share moves by, in percentage points; `SHARE_MIN` and 100 are multiples of it.
const STEP: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_a_number_from_0_to_1() {
        for (load, expected) in [
            ("0", Some(100)),
            ("0.0", Some(100)),
            (" 0.25\t", Some(75)),
            (".5", Some(50)),
            ("0.999", Some(SHARE_MIN)),
            ("1", Some(SHARE_MIN)),
            ("1.0", Some(SHARE_MIN)),
            ("1.01", None),
            ("-0", None),
            ("+0.5", None),
            ("5e-1", None),
            ("nan", None),
            ("inf", None),
            ("0.5.1", None),
            (".", None),
            ("50%", None),
            ("", None),
        ] {
            assert_eq!(share_of(load), expected, "{load:?}");
        }
    }

    #[test]
    fn a_share_moves_in_steps_and_not_for_less_than_one() {
        for (before, share, expected) in [
            (100, 96, 100),
            (100, 95, 95),
            (95, 99, 95),
            (95, 100, 100),
            (50, 46, 50),
            (50, 54, 50),
            (50, 43, 45),
            (50, 42, 40),
            (100, 5, 5),
            (10, 5, 5),
            (5, 9, 5),
            (5, 100, 100),
        ] {
            assert_eq!(settled(before, share), expected, "{before} then {share}");
        }
    }
}
