//! How times, spans, money and sizes are written for people, and how spans and times are read from the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longtake_engine::money::Money;
use longtake_proto::convert;
use longtake_proto::v1;
use prost_types::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What stands for something that is not known, or not there.
pub(crate) const NOTHING: &str = "-";

const MICROS_PER_SECOND: i64 = 1_000_000;

/// This program, as it was started: what a command line that is shown begins with, so that it works where this one did.
pub(crate) fn program() -> String {
    let started = std::env::args_os().next().unwrap_or_default();
    let started = started.to_string_lossy();
    if started.is_empty() { "longtake".to_owned() } else { quoted(&started) }
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Now, by this machine.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    convert::timestamp_from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// `$0.183`; absent is not zero.
pub(crate) fn money(amount: Option<&v1::Money>) -> String {
    amount.map_or_else(|| NOTHING.to_owned(), |amount| Money(amount.nano_usd).to_string())
}

/// `340 ms`, `4.2 s`, `41 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn span(span: Duration) -> String {
    let millis = span.as_millis();
    let seconds = span.as_secs();
    let two = |large: u64, unit: &str, small: u64, lesser: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {lesser}"),
    };
    match seconds {
        0 => format!("{millis} ms"),
        1..=9 => format!("{seconds}.{} s", millis % 1_000 / 100),
        10..=59 => format!("{seconds} s"),
        60..=3_599 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..=86_399 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// From one time to another; zero when they are the wrong way round.
pub(crate) fn between(from: &Timestamp, to: &Timestamp) -> Duration {
    let micros = |time| convert::micros_from_timestamp(time).unwrap_or(0);
    Duration::from_micros(u64::try_from(micros(to).saturating_sub(micros(from))).unwrap_or(0))
}

/// `3 min 20 s ago`, `in 5 s`, `now`.
pub(crate) fn relative(time: &Timestamp, now: &Timestamp) -> String {
    let (past, future) = (between(time, now), between(now, time));
    match () {
        () if past >= Duration::from_secs(1) => format!("{} ago", span(past)),
        () if future >= Duration::from_secs(1) => format!("in {}", span(future)),
        () => "now".to_owned(),
    }
}

/// `2027-01-15 08:00:00Z`.
pub(crate) fn moment(time: &Timestamp) -> String {
    let Ok(moment) = OffsetDateTime::from_unix_timestamp(time.seconds) else { return NOTHING.to_owned() };
    let (date, clock) = (moment.date(), moment.time());
    format!("{date} {:02}:{:02}:{:02}Z", clock.hour(), clock.minute(), clock.second())
}

/// `08:00:00.125`, for histories.
pub(crate) fn clock(time: &Timestamp) -> String {
    let of_day = time.seconds.rem_euclid(86_400);
    let (hours, minutes, seconds) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", time.nanos / 1_000_000)
}

/// `812 B`, `4.2 kB`, `12.3 MB`.
pub(crate) fn bytes(size: i64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(unit, _)| size >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", size / unit, size % unit / (unit / 10)),
        None => format!("{size} B"),
    }
}

/// An enum's proto name in words: `STATE_TIMED_OUT` without its prefix is `TIMED_OUT`.
pub(crate) fn state(name: &str) -> &str {
    name.strip_prefix("STATE_").unwrap_or(name)
}

/// Reads `90s`, `1h30m`, `2d`, `250ms`.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a span of time: write for example 90s, 10m, 1h30m or 2d");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or_else(wrong)?;
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(wrong()),
        };
        sum += unit * number;
        rest = &rest[unit_end..];
    }
    if sum.is_zero() { Err(wrong()) } else { Ok(sum) }
}

/// A point in time on the command line: from now on, or absolute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    /// `2h`, or `+2h`.
    In(Duration),
    /// `2027-01-15T08:00:00Z`.
    At(Timestamp),
}

impl When {
    /// The point in time.
    pub(crate) fn resolve(self, now: &Timestamp) -> Timestamp {
        match self {
            When::At(time) => time,
            When::In(span) => {
                Timestamp { seconds: now.seconds.saturating_add_unsigned(span.as_secs()), nanos: now.nanos }
            }
        }
    }

    /// The point in time that lies as far back.
    pub(crate) fn resolve_back(self, now: &Timestamp) -> Timestamp {
        match self {
            When::At(time) => time,
            When::In(span) => {
                Timestamp { seconds: now.seconds.saturating_sub_unsigned(span.as_secs()), nanos: now.nanos }
            }
        }
    }
}

/// Reads `2h` (from now) or an RFC 3339 time.
pub(crate) fn parse_when(text: &str) -> Result<When, String> {
    if let Ok(span) = parse_span(text.strip_prefix('+').unwrap_or(text)) {
        return Ok(When::In(span));
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        format!("{text:?} is no time: write a span from now such as 2h, or for example 2027-01-15T08:00:00Z")
    })?;
    let micros = i64::try_from(moment.unix_timestamp_nanos() / 1_000).map_err(|error| error.to_string())?;
    debug_assert!(micros / MICROS_PER_SECOND <= 253_402_300_799, "RFC 3339 has four digits for the year");
    Ok(When::At(convert::timestamp_from_micros(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        for (word, shown) in [
            ("target/release/longtake", "target/release/longtake"),
            ("/my tools/longtake", "'/my tools/longtake'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn spans_are_short() {
        for (millis, text) in [
            (0, "0 ms"),
            (340, "340 ms"),
            (4_260, "4.2 s"),
            (41_900, "41 s"),
            (60_000, "1 min"),
            (200_000, "3 min 20 s"),
            (7_500_000, "2 h 5 min"),
            (86_400_000, "1 d"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn times_are_relative_or_in_utc() {
        for (time, text) in [(100, "now"), (98, "2.0 s ago"), (40, "1 min ago"), (105, "in 5.0 s")] {
            assert_eq!(relative(&at(time), &at(100)), text);
        }
        assert_eq!(moment(&at(1_800_000_000)), "2027-01-15 08:00:00Z");
        assert_eq!(moment(&at(i64::MAX)), NOTHING);
        assert_eq!(clock(&Timestamp { seconds: 1_800_000_061, nanos: 125_900_000 }), "08:01:01.125");
        assert_eq!(clock(&at(-1)), "23:59:59.000");
    }

    #[test]
    fn money_and_sizes() {
        assert_eq!(money(Some(&v1::Money { nano_usd: 183_000_000 })), "$0.183");
        assert_eq!(money(Some(&v1::Money { nano_usd: 0 })), "$0.00");
        assert_eq!(money(None), NOTHING);
        for (size, text) in [
            (0, "0 B"),
            (812, "812 B"),
            (4_260, "4.2 kB"),
            (12_345_678, "12.3 MB"),
            (7_000_000_000, "7.0 GB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn spans_and_times_are_read() {
        for (text, millis) in
            [("90s", 90_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("250ms", 250), ("5min", 300_000)]
        {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0s", "5", "s", "-5s", "5x", "1.5h", "99999999999s", "5s junk", "é"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
        assert_eq!(parse_when("2h").unwrap().resolve(&at(100)), at(7_300));
        assert_eq!(parse_when("+2h").unwrap().resolve_back(&at(10_000)), at(2_800));
        assert_eq!(parse_when("2027-01-15T09:00:00+01:00"), Ok(When::At(at(1_800_000_000))));
        for text in ["tomorrow", "2027-01-15", "08:00"] {
            assert!(parse_when(text).is_err(), "{text}");
        }
    }
}
