//! Dates and times of day in UTC, made once a second and not once a line.

use std::time::Duration;

use crate::access_log::number;

/// The last second that was written.
#[derive(Debug)]
pub struct Stamp {
    /// Since 1970; `None` before the first.
    second: Option<u64>,
    /// As `[23/Nov/2026:03:10:00 +0000]`.
    clf: Vec<u8>,
    /// As `2026-11-23T03:10:00`.
    iso: Vec<u8>,
}

impl Default for Stamp {
    fn default() -> Stamp {
        Stamp { second: None, clf: Vec::with_capacity(BYTES), iso: Vec::with_capacity(BYTES) }
    }
}

impl Stamp {
    /// As the common log format has it, with brackets.
    pub(super) fn clf(&mut self, since_1970: Duration) -> &[u8] {
        self.turn_to(since_1970.as_secs());
        &self.clf
    }

    /// As RFC 3339 has it, without what is below a second.
    pub(super) fn iso(&mut self, since_1970: Duration) -> &[u8] {
        self.turn_to(since_1970.as_secs());
        &self.iso
    }

    fn turn_to(&mut self, second: u64) {
        if self.second.replace(second) == Some(second) {
            return;
        }
        let (year, month, day) = date_of(second / DAY);
        let times = [second % DAY / 3600, second % 3600 / 60, second % 60];
        let Stamp { clf, iso, .. } = self;
        clf.clear();
        clf.push(b'[');
        number::padded::<2>(day, clf);
        clf.push(b'/');
        clf.extend_from_slice(MONTHS[month as usize - 1].as_bytes());
        clf.push(b'/');
        number::padded::<4>(year, clf);
        iso.clear();
        number::padded::<4>(year, iso);
        for part in [month, day] {
            iso.push(b'-');
            number::padded::<2>(part, iso);
        }
        for (time, separator) in times.into_iter().zip(*b"T::") {
            clf.push(b':');
            number::padded::<2>(time, clf);
            iso.push(separator);
            number::padded::<2>(time, iso);
        }
        clf.extend_from_slice(b" +0000]");
    }
}

/// Year, month and day of a day since 1970, by the Gregorian calendar. Years are counted from
/// March here, so that the leap day is the last one; 400 of them have 146,097 days.
fn date_of(day: u64) -> (u64, u64, u64) {
    // From 1 March of the year 0 to 1 January 1970.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, is_next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + is_next_year, month, day)
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Seconds of a day.
const DAY: u64 = 86_400;
/// Room for one of the two.
const BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(second: u64, iso: &str, clf: &str) {
        let (mut stamp, at) = (Stamp::default(), Duration::from_secs(second));
        assert_eq!(str::from_utf8(stamp.iso(at)).unwrap(), iso);
        assert_eq!(str::from_utf8(stamp.clf(at)).unwrap(), clf);
    }

    #[test]
    fn dates_are_right_around_leap_days_and_ends_of_years() {
        check(0, "1970-01-01T00:00:00", "[01/Jan/1970:00:00:00 +0000]");
        check(951_782_399, "2000-02-28T23:59:59", "[28/Feb/2000:23:59:59 +0000]");
        check(951_782_400, "2000-02-29T00:00:00", "[29/Feb/2000:00:00:00 +0000]");
        check(951_868_800, "2000-03-01T00:00:00", "[01/Mar/2000:00:00:00 +0000]");
        check(1_709_251_199, "2024-02-29T23:59:59", "[29/Feb/2024:23:59:59 +0000]");
        check(1_735_689_599, "2024-12-31T23:59:59", "[31/Dec/2024:23:59:59 +0000]");
        check(1_795_403_400, "2026-11-23T03:10:00", "[23/Nov/2026:03:10:00 +0000]");
        check(4_107_542_399, "2100-02-28T23:59:59", "[28/Feb/2100:23:59:59 +0000]");
        check(4_107_542_400, "2100-03-01T00:00:00", "[01/Mar/2100:00:00:00 +0000]");
    }

    #[test]
    fn a_stamp_follows_time_both_ways() {
        let mut stamp = Stamp::default();
        for second in [5, 6, 6, 5, 65] {
            let text = format!("1970-01-01T00:{:02}:{:02}", second / 60, second % 60);
            assert_eq!(stamp.iso(Duration::from_secs(second)), text.as_bytes());
        }
    }
}
