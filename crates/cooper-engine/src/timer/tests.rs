//! Each rule of the contract's table, both edges of daylight saving, and all of it against a search minute by minute.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().expect("RFC 3339");
    Timestamp::from_micros(time.as_microsecond())
}

fn schedule(expression: &str, zone: &str) -> Schedule {
    let expression = Expression::parse(expression).expect("an expression");
    Schedule { expression, zone: Zone::parse(zone).expect("a zone") }
}

/// The first firings after an instant, without seconds.
fn firings(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    let firings = std::iter::successors(schedule.next_after(at(after)), |last| schedule.next_after(*last));
    firings.take(count).map(|time| time.to_string()[..16].to_owned()).collect()
}

#[track_caller]
fn check(expression: &str, after: &str, expect: &[&str]) {
    assert_eq!(firings(&schedule(expression, "UTC"), after, expect.len()), expect, "{expression}");
}

#[test]
fn the_rules_of_the_contract() {
    // 2026-01-01 is a Thursday.
    let new_year = "2026-01-01T00:00:00Z";
    check("*/5 * * * *", new_year, &["2026-01-01T00:05", "2026-01-01T00:10"]);
    check("0 9-17 * * *", "2026-01-01T16:59:59Z", &["2026-01-01T17:00", "2026-01-02T09:00"]);
    check("30 9 * * 1-5", "2026-01-02T09:30:00Z", &["2026-01-05T09:30"]);
    check("30 9 * Jan Mon", new_year, &["2026-01-05T09:30", "2026-01-12T09:30"]);
    check("0 12 * * Mon-Fri", "2026-01-02T12:00:00Z", &["2026-01-05T12:00"]);
    check("0 1 * * Sun", new_year, &["2026-01-04T01:00", "2026-01-11T01:00"]);
    // Strictly after, to the microsecond.
    check("0 0 1 1 *", "2025-12-31T23:59:59.999999Z", &["2026-01-01T00:00"]);
    check("0 0 1 1 *", new_year, &["2027-01-01T00:00"]);
    // A single value with a step goes on to the end, a range with a step to its own.
    check("5/10 0 * * *", new_year, &["2026-01-01T00:05", "2026-01-01T00:15", "2026-01-01T00:25"]);
    check("50/10 0 * * *", "2026-01-01T00:05:00Z", &["2026-01-01T00:50", "2026-01-02T00:50"]);
    check("10-30/10 0 * * *", "2026-01-01T00:20:00Z", &["2026-01-01T00:30", "2026-01-02T00:10"]);
    // A reversed range is turned round, not wrapped.
    check("0 22-2 * * *", new_year, &["2026-01-01T02:00", "2026-01-01T03:00"]);
    check("0 22-2 * * *", "2026-01-01T22:00:00Z", &["2026-01-02T02:00"]);
    // A step below one is one.
    check("0/0 0 * * *", new_year, &["2026-01-01T00:01"]);
    // Any beginning of a name, in any case; the first in the list counts.
    check("0 0 1 J *", "2026-01-02T00:00:00Z", &["2027-01-01T00:00"]);
    check("0 0 1 m *", new_year, &["2026-03-01T00:00", "2027-03-01T00:00"]);
    check("0 0 * * S", new_year, &["2026-01-04T00:00", "2026-01-11T00:00"]);
    check("0 0 * * t,saturday", new_year, &["2026-01-03T00:00", "2026-01-06T00:00"]);
    check("0 0 1 jul-SEP *", new_year, &["2026-07-01T00:00", "2026-08-01T00:00", "2026-09-01T00:00"]);
    // Day and weekday, not day or weekday.
    check("0 0 13 * Fri", new_year, &["2026-02-13T00:00", "2026-03-13T00:00", "2026-11-13T00:00"]);
    // Short months are passed over.
    check("0 0 31 * *", "2026-01-31T00:00:00Z", &["2026-03-31T00:00", "2026-05-31T00:00"]);
    check("0 0 29 2 *", new_year, &["2028-02-29T00:00", "2032-02-29T00:00"]);
    // Lists, and spaces of any kind.
    check(" 0\t0,12  * * *,3 ", new_year, &["2026-01-01T12:00", "2026-01-02T00:00"]);
}

#[test]
fn what_never_comes_never_fires() {
    assert_eq!(schedule("0 0 30 2 *", "UTC").next_after(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(schedule("0 0 31 4,6,9,11 *", "Europe/Berlin").next_after(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(schedule("* * * * *", "UTC").next_after(Timestamp::from_micros(i64::MAX)), None);
}

#[test]
fn what_is_wrong_is_named() {
    for (text, expect) in [
        ("* * * *", "a schedule has five fields (minute hour day month weekday), this one has 4"),
        ("0 * * * * *", "a schedule has five fields (minute hour day month weekday), this one has 6"),
        ("", "a schedule has five fields (minute hour day month weekday), this one has 0"),
        ("@daily", "a schedule has five fields (minute hour day month weekday), this one has 1"),
    ] {
        assert_eq!(Expression::parse(text).expect_err(text).to_string(), expect);
    }
    let day = "weekday `7` is not one of: `*`, a number from 0 to 6, or a name such as `Mon`, a range `a-b`, a list `a,b`, \
               each with a step `/n`";
    assert_eq!(Expression::parse("* * * * 7").expect_err("7").to_string(), day);
    for wrong in [
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 0 *",
        "* * * 13 *",
        "* * L * *",
        "* * 1W * *",
        "* * * * 5#2",
        "? * * * *",
        "-1 * * * *",
        "1- * * * *",
        "+1 * * * *",
        "1,,2 * * * *",
        "1, * * * *",
        "*/ * * * *",
        "*/x * * * *",
        "1/2/3 * * * *",
        "1-2-3 * * * *",
        "a * * * *",
        "* * * Jam *",
        "* * * * Sundays",
        "**  * * * *",
        "0x1 * * * *",
        "1é * * * *",
        "99999999999999999999 * * * *",
    ] {
        assert!(matches!(Expression::parse(wrong), Err(ExpressionError::Field { .. })), "{wrong}");
    }
    assert_eq!(Expression::parse(&"1,".repeat(600)), Err(ExpressionError::TooLong));
    let error =
        "there is no time zone `Europe/Berlim`; use a name of the IANA database such as `Europe/Berlin`, or `UTC`";
    assert_eq!(Zone::parse("Europe/Berlim").expect_err("no zone").to_string(), error);
    assert_eq!(Zone::parse("europe/berlin").expect("a zone").name(), "Europe/Berlin");
}

#[test]
fn a_skipped_wall_time_fires_once_at_the_change() {
    // In Berlin 02:00 became 03:00 on 2026-03-29, at 01:00 UTC.
    let before = "2026-03-28T12:00:00Z";
    let daily = schedule("30 2 * * *", "Europe/Berlin");
    assert_eq!(firings(&daily, before, 3), ["2026-03-29T01:00", "2026-03-30T00:30", "2026-03-31T00:30"]);
    let often = schedule("*/20 2 * * *", "Europe/Berlin");
    assert_eq!(firings(&often, before, 3), ["2026-03-29T01:00", "2026-03-30T00:00", "2026-03-30T00:20"]);
    // 02:30 and 03:00 are one moment, and one firing.
    let both = schedule("0,30 2,3 * * *", "Europe/Berlin");
    assert_eq!(firings(&both, before, 3), ["2026-03-29T01:00", "2026-03-29T01:30", "2026-03-30T00:00"]);
    let hourly = schedule("0 * * * *", "Europe/Berlin");
    assert_eq!(firings(&hourly, "2026-03-29T00:00:00Z", 2), ["2026-03-29T01:00", "2026-03-29T02:00"]);
    // No hour, no firing: neither at half past, nor at the change in its place.
    let hourly = schedule("30 * 29 3 *", "Europe/Berlin");
    assert_eq!(firings(&hourly, "2026-03-29T00:00:00Z", 2), ["2026-03-29T00:30", "2026-03-29T01:30"]);
    let next_day = at("2026-03-29T22:00:00Z");
    let day = firings(&hourly, before, 24).into_iter().filter(|time| at(&format!("{time}:00Z")) < next_day);
    assert_eq!(day.count(), 23);
    // Half an hour, on the other side of the world.
    let howe = schedule("15 2 * * *", "Australia/Lord_Howe");
    assert_eq!(firings(&howe, "2026-10-03T00:00:00Z", 2), ["2026-10-03T15:30", "2026-10-04T15:15"]);
    // A day that was left out whole.
    let apia = schedule("0 12 * * *", "Pacific/Apia");
    assert_eq!(firings(&apia, "2011-12-29T00:00:00Z", 3), ["2011-12-29T22:00", "2011-12-30T10:00", "2011-12-30T22:00"]);
}

#[test]
fn a_repeated_wall_time_fires_first_alone_unless_it_is_an_interval() {
    // In Berlin 03:00 became 02:00 on 2026-10-25, at 01:00 UTC.
    let before = "2026-10-24T12:00:00Z";
    let daily = schedule("30 2 * * *", "Europe/Berlin");
    assert_eq!(firings(&daily, before, 2), ["2026-10-25T00:30", "2026-10-26T01:30"]);
    let some = schedule("0,30 1-3 * * *", "Europe/Berlin");
    let expect = ["2026-10-24T23:00", "2026-10-24T23:30", "2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T02:00"];
    assert_eq!(firings(&some, before, 5), expect);
    let interval = schedule("*/30 * * * *", "Europe/Berlin");
    let expect = ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"];
    assert_eq!(firings(&interval, "2026-10-24T23:30:00Z", 5), expect);
}

/// What the contract says, minute by minute, without anything of the implementation.
fn brute(fields: &[Vec<u32>; 5], after: Timestamp, minutes: i64) -> Option<Timestamp> {
    const MINUTE: i64 = 60_000_000;
    let first = after.as_micros().div_euclid(MINUTE) + 1;
    (first..first + minutes).map(|minute| Timestamp::from_micros(minute * MINUTE)).find(|time| {
        let time = jiff::Timestamp::from_microsecond(time.as_micros()).expect("in range");
        let time = jiff::tz::TimeZone::UTC.to_datetime(time);
        let parts = [time.minute(), time.hour(), time.day(), time.month(), time.weekday().to_sunday_zero_offset()];
        fields.iter().zip(parts).all(|(allowed, part)| allowed.is_empty() || allowed.contains(&(part as u32)))
    })
}

fn field(min: u32, max: u32) -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![Just(Vec::new()), prop::collection::vec(min..=max, 1..4)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_next_firing_is_the_first_minute_that_matches(
        fields in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)),
        seconds in 1_700_000_000_i64..1_900_000_000,
        micros in 0_i64..1_000_000,
    ) {
        const MINUTES: i64 = 60 * 24 * 40;
        let fields = [fields.0, fields.1, fields.2, fields.3, fields.4];
        let text = fields.iter().map(|numbers| match numbers.as_slice() {
            [] => "*".to_owned(),
            numbers => numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        });
        let schedule = schedule(&text.collect::<Vec<_>>().join(" "), "UTC");
        let after = Timestamp::from_micros(seconds * 1_000_000 + micros);
        let horizon = Timestamp::from_micros(after.as_micros() + MINUTES * 60_000_000);
        let next = schedule.next_after(after).filter(|next| *next <= horizon);
        prop_assert_eq!(next, brute(&fields, after, MINUTES).filter(|next| *next <= horizon));
    }

    #[test]
    fn firings_move_forward_in_every_zone(
        expression in prop::sample::select(vec!["*/7 * * * *", "30 1-3 * * *", "0 0 * * *", "15,45 2 * * Sun"]),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
        seconds in 1_700_000_000_i64..1_900_000_000,
    ) {
        let schedule = schedule(expression, zone);
        let mut last = Timestamp::from_micros(seconds * 1_000_000);
        for _ in 0..20 {
            let next = schedule.next_after(last).expect("it fires for ever");
            prop_assert!(next > last);
            // Nothing lies between: asked a moment earlier, it answers the same.
            let moment = Timestamp::from_micros(next.as_micros() - 1).max(last);
            prop_assert_eq!(schedule.next_after(moment), Some(next));
            last = next;
        }
    }

    #[test]
    fn no_text_is_a_panic(text in "\\PC{0,40}") {
        if let Ok(expression) = Expression::parse(&text) {
            prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
        }
    }
}
