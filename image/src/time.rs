// SPDX-License-Identifier: GPL-2.0-or-later

//! Times in UTC.

/// `2001-02-03T04:05:06.000000007Z`: ISO 8601, all nanoseconds, for any time that an image can hold.
pub fn utc(sec: i64, nsec: u32) -> String {
    let (days, rest) = (sec.div_euclid(86_400), sec.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nsec:09}Z")
}

/// The date of a day counted from 1970-01-01. Years begin in March here, so that the leap day is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_date() {
        assert_eq!(utc(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(utc(-1, 5), "1969-12-31T23:59:59.000000005Z");
        assert_eq!(utc(951_782_400, 0), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(utc(-2_147_483_648, 0), "1901-12-13T20:45:52.000000000Z");
        assert_eq!(utc(15_032_385_535, 0), "2446-05-10T22:38:55.000000000Z");
    }
}
