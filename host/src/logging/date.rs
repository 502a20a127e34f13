//! Time stamps of log lines, in UTC, after a format of `%` codes.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::settings::Setting;

/// How time stamps are written: the common codes of `strftime`, with `%f` for microseconds and
/// `%3f`, `%6f`, `%9f` for so many digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateFormat {
    /// What of it was understood.
    source: String,
    parts: Vec<Part>,
}

/// A piece of a time stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Code(char),
    /// Digits of the second's fraction.
    Fraction(u32),
}

/// Codes of one letter that are understood, beside `%f`.
const CODES: &str = "YCymdeHIMSjaAbBhpzZsuwFTDRt%";

/// Codes that stand for several.
const COMPOUND: [(char, &str); 4] =
    [('F', "%Y-%m-%d"), ('T', "%H:%M:%S"), ('D', "%m/%d/%y"), ('R', "%H:%M")];

impl DateFormat {
    /// Reads a format; what is not understood is left out, and returned beside it.
    #[must_use]
    pub fn parse(source: &str) -> (Self, Vec<String>) {
        let mut format = Self { source: String::with_capacity(source.len()), parts: Vec::new() };
        let mut unknown = Vec::new();
        let mut rest = source;
        while let Some(at) = rest.find('%') {
            format.push_text(&rest[..at]);
            let code = code_at(&rest[at..]);
            let (written, later) = rest[at..].split_at(code);
            if format.push_code(&written[1..]) {
                format.source.push_str(written);
            } else {
                unknown.push(written.to_owned());
            }
            rest = later;
        }
        format.push_text(rest);
        (format, unknown)
    }

    fn push_text(&mut self, text: &str) {
        self.source.push_str(text);
        self.push_part(text);
    }

    fn push_part(&mut self, text: &str) {
        if let Some(Part::Text(before)) = self.parts.last_mut() {
            before.push_str(text);
        } else if !text.is_empty() {
            self.parts.push(Part::Text(text.to_owned()));
        }
    }

    /// Adds what a code (without its `%`) stands for; `false` where it stands for nothing known.
    fn push_code(&mut self, code: &str) -> bool {
        let digit = |text: &str| text.parse::<u32>().ok().filter(|digits| (1..=9).contains(digits));
        // chrono's own: `%.3f` is `%3f` behind a point.
        let (point, fraction) = match code.strip_prefix('.') {
            Some(rest) => (".", rest.strip_suffix('f')),
            None => ("", code.strip_suffix('f')),
        };
        match (fraction, code.chars().next()) {
            (Some(""), _) if point.is_empty() => self.parts.push(Part::Fraction(6)),
            (Some(digits), _) => {
                let Some(digits) = digit(digits) else { return false };
                self.push_part(point);
                self.parts.push(Part::Fraction(digits));
            }
            (None, Some('%')) => self.push_part("%"),
            (None, Some(code)) if CODES.contains(code) => {
                match COMPOUND.iter().find(|(compound, _)| *compound == code) {
                    Some((_, meaning)) => self.parts.extend(Self::parse(meaning).0.parts),
                    None => self.parts.push(Part::Code(code)),
                }
            }
            (None, Some(_) | None) => return false,
        }
        true
    }

    /// Writes a point in time.
    ///
    /// # Errors
    /// Only those of `out`.
    pub fn write(&self, time: SystemTime, out: &mut dyn Write) -> fmt::Result {
        let civil = Civil::at(time);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.write_str(text)?,
                Part::Code(code) => civil.write_code(*code, out)?,
                Part::Fraction(digits) => {
                    let value = civil.nanos / 10u32.pow(9 - digits);
                    write!(out, "{value:0width$}", width = *digits as usize)?;
                }
            }
        }
        Ok(())
    }
}

impl Default for DateFormat {
    /// RFC 3339 with milliseconds.
    fn default() -> Self {
        Self::parse("%Y-%m-%dT%H:%M:%S.%3fZ").0
    }
}

impl Setting for DateFormat {
    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().ok_or("must be text such as \"%Y-%m-%d %H:%M:%S.%3f\"")?;
        match Self::parse(text) {
            (format, unknown) if unknown.is_empty() => Ok(format),
            (_, unknown) => Err(format!("has codes that are not known: {}", unknown.join(" "))),
        }
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(self.source.as_str()))
    }
}

/// How long the code is that begins at the `%` at the start of `text`: a point and a digit may
/// stand before its letter.
fn code_at(text: &str) -> usize {
    let letters = text[1..].trim_start_matches('.');
    let letters = letters.strip_prefix(|c: char| c.is_ascii_digit()).unwrap_or(letters);
    let letter = letters.chars().next().map_or(0, char::len_utf8);
    text.len() - letters.len() + letter
}

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A point in time as people name it, in UTC.
#[derive(Clone, Copy, Debug)]
struct Civil {
    unix_seconds: i64,
    year: i64,
    /// 1 to 12.
    month: u32,
    /// 1 to 31.
    day: u32,
    /// 1 to 366.
    day_of_year: u32,
    /// 0 is Sunday.
    weekday: usize,
    hour: u32,
    minute: u32,
    second: u32,
    nanos: u32,
}

impl Civil {
    fn at(time: SystemTime) -> Self {
        let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => (since.as_secs().cast_signed(), since.subsec_nanos()),
            Err(before) => floor_before_epoch(before.duration()),
        };
        let days = seconds.div_euclid(86_400);
        let of_day = u32::try_from(seconds.rem_euclid(86_400)).unwrap_or(0);
        let (year, month, day) = civil_from_days(days);
        let day_of_year = days - days_from_civil(year, 1, 1) + 1;
        Self {
            unix_seconds: seconds,
            year,
            month,
            day,
            day_of_year: u32::try_from(day_of_year).unwrap_or(1),
            // 1970-01-01 was a Thursday.
            weekday: usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0),
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            nanos,
        }
    }

    fn write_code(&self, code: char, out: &mut dyn Write) -> fmt::Result {
        let weekday = DAYS[self.weekday];
        let month = MONTHS[(self.month as usize - 1) % MONTHS.len()];
        match code {
            'Y' => write!(out, "{:04}", self.year),
            'C' => write!(out, "{:02}", self.year.div_euclid(100)),
            'y' => write!(out, "{:02}", self.year.rem_euclid(100)),
            'm' => write!(out, "{:02}", self.month),
            'd' => write!(out, "{:02}", self.day),
            'e' => write!(out, "{:2}", self.day),
            'H' => write!(out, "{:02}", self.hour),
            'I' => write!(out, "{:02}", (self.hour + 11) % 12 + 1),
            'M' => write!(out, "{:02}", self.minute),
            'S' => write!(out, "{:02}", self.second),
            'j' => write!(out, "{:03}", self.day_of_year),
            'a' => out.write_str(&weekday[..3]),
            'A' => out.write_str(weekday),
            'b' | 'h' => out.write_str(&month[..3]),
            'B' => out.write_str(month),
            'p' => out.write_str(if self.hour < 12 { "AM" } else { "PM" }),
            'z' => out.write_str("+0000"),
            'Z' => out.write_str("UTC"),
            's' => write!(out, "{}", self.unix_seconds),
            'u' => write!(out, "{}", if self.weekday == 0 { 7 } else { self.weekday }),
            'w' => write!(out, "{}", self.weekday),
            't' => out.write_char('\t'),
            other => out.write_char(other),
        }
    }
}

/// Whole seconds and the rest of a point that lies so long before 1970.
fn floor_before_epoch(before: Duration) -> (i64, u32) {
    let seconds = before.as_secs().cast_signed();
    match before.subsec_nanos() {
        0 => (-seconds, 0),
        nanos => (-seconds - 1, 1_000_000_000 - nanos),
    }
}

/// Days since 1970-01-01 to year, month and day of the Gregorian calendar. A year is counted from
/// March, so that the leap day is its last; 400 years are 146,097 days.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: &str, seconds: u64, nanos: u32) -> String {
        let (format, unknown) = DateFormat::parse(format);
        assert_eq!(unknown, Vec::<String>::new());
        let mut out = String::new();
        format.write(UNIX_EPOCH + Duration::new(seconds, nanos), &mut out).unwrap();
        out
    }

    #[test]
    fn every_code() {
        // Thursday, 29 February 2024, 13:05:09.123456789 UTC.
        let cases = [
            ("%Y-%m-%d %H:%M:%S.%3f", "2024-02-29 13:05:09.123"),
            ("%F %T", "2024-02-29 13:05:09"),
            ("%f %6f %9f %1f %.3f", "123456 123456 123456789 1 .123"),
            ("%C %y %e %I %p %j", "20 24 29 01 PM 060"),
            ("%a %A %b %B %h %u %w", "Thu Thursday Feb February Feb 4 4"),
            ("%D %R %z %Z %s %%", "02/29/24 13:05 +0000 UTC 1709211909 %"),
            ("plain é", "plain é"),
            ("", ""),
        ];
        for (format, shown) in cases {
            assert_eq!(written(format, 1_709_211_909, 123_456_789), shown, "{format}");
        }
    }

    #[test]
    fn known_days() {
        let cases = [
            (0, "1970-01-01 00:00:00 Thu 001"),
            (951_782_400, "2000-02-29 00:00:00 Tue 060"),
            (1_735_689_599, "2024-12-31 23:59:59 Tue 366"),
            (1_735_689_600, "2025-01-01 00:00:00 Wed 001"),
            (4_107_542_400, "2100-03-01 00:00:00 Mon 060"),
        ];
        for (seconds, shown) in cases {
            assert_eq!(written("%F %T %a %j", seconds, 0), shown);
        }
        assert_eq!(written("%I%p", 0, 0), "12AM");
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for days in (-800_000..800_000).step_by(13) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn before_the_epoch() {
        let mut out = String::new();
        let (format, _) = DateFormat::parse("%F %T.%3f");
        format.write(UNIX_EPOCH - Duration::from_millis(1), &mut out).unwrap();
        assert_eq!(out, "1969-12-31 23:59:59.999");
    }

    #[test]
    fn unknown_codes_are_named() {
        let cases = [
            ("%Q", vec!["%Q"]),
            ("%H:%", vec!["%"]),
            ("%0f %3x %-d %é", vec!["%0f", "%3x", "%-", "%é"]),
            ("%.5x %.f %..3f %3", vec!["%.5x", "%.f", "%..3f", "%3"]),
        ];
        for (format, unknown) in cases {
            assert_eq!(DateFormat::parse(format).1, unknown, "{format}");
            assert!(DateFormat::read(&Value::from(format)).is_err());
        }
        assert!(DateFormat::read(&Value::from(1)).is_err());
        let (format, _) = DateFormat::parse("%H:%Q%M %%");
        assert_eq!(DateFormat::read(&Value::from("%H:%M %%")), Ok(format));
        let format = DateFormat::default();
        assert_eq!(DateFormat::read(&format.show().unwrap()), Ok(format));
    }
}
