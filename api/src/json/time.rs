//! Moments as texts: `2026-01-31T12:00:00.000Z`, in whole milliseconds, years 1970 to 9999.

const DAY: i64 = 86_400;

/// The text of a moment given as seconds since 1970 and nanoseconds.
pub(super) fn format(seconds: i64, nanos: i32) -> String {
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let ms = nanos / 1_000_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Seconds since 1970 and nanoseconds of a text in UTC; the fraction may be left out or have up to
/// three digits.
pub(super) fn parse(text: &str) -> Option<(i64, i32)> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, fraction) = time.split_once('.').map_or((time, "0"), |(time, rest)| (time, rest));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let valid = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid || fraction.is_empty() || fraction.len() > 3 {
        return None;
    }
    let ms: i32 = digits(&format!("{fraction:0<3}"))?.try_into().ok()?;
    let seconds = days(year, month, day) * DAY + hour * 3_600 + minute * 60 + second;
    Some((seconds, ms * 1_000_000))
}

fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[i64; 3]> {
    let parts: Vec<&str> = text.split(separator).collect();
    let [a, b, c] = parts[..] else { return None };
    if [a, b, c].map(str::len) != widths {
        return None;
    }
    Some([digits(a)?, digits(b)?, digits(c)?])
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date. The year is taken to begin in March, so that a leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date `days` after 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_moment_survives_its_text(ms in 0..=253_402_300_799_999_i64) {
            let nanos = i32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000;
            let moment = (ms / 1_000, nanos);
            prop_assert_eq!(parse(&format(moment.0, moment.1)), Some(moment));
        }
    }

    #[test]
    fn known_moments_have_their_texts() {
        assert_eq!(format(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format(951_782_400, 7_000_000), "2000-02-29T00:00:00.007Z");
        assert_eq!(format(253_402_300_799, 999_000_000), "9999-12-31T23:59:59.999Z");
        assert_eq!(parse("2000-02-29T00:00:00Z"), Some((951_782_400, 0)));
        assert_eq!(parse("2000-02-29T00:00:00.5Z"), Some((951_782_400, 500_000_000)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let texts = [
            "",
            "Z",
            "2001-02-29T00:00:00Z",
            "2000-13-01T00:00:00Z",
            "2000-00-01T00:00:00Z",
            "2000-01-01T24:00:00Z",
            "2000-01-01T00:60:00Z",
            "2000-01-01T00:00:60Z",
            "2000-01-01T00:00:00",
            "2000-01-01 00:00:00Z",
            "2000-1-01T00:00:00Z",
            "2000-01-01T00:00:00.Z",
            "2000-01-01T00:00:00.1234Z",
            "+200-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "é000-01-01T00:00:00Z",
        ];
        for text in texts {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
