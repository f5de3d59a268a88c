//! Tables for the usual lives of a delivery, and properties for all of them.

use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
const POLICY: Policy = Policy::DEFAULT;
const DAY: u64 = 24 * 3600;

fn after(seconds: u64) -> Timestamp {
    START.after(Duration::from_secs(seconds))
}

/// A delivery and its target.
type Sent = (Delivery, Standing);

fn queued(at: Timestamp) -> Sent {
    (Delivery::queued(at), Standing::default())
}

fn begun((delivery, standing): Sent, now: Timestamp) -> Sent {
    delivery.apply(Event::Begun, standing, now, &POLICY).expect("it is due")
}

fn ended((delivery, standing): Sent, now: Timestamp, answer: Answer) -> Sent {
    let event = Event::Ended { number: delivery.tries, answer, spread: 1.0 };
    delivery.apply(event, standing, now, &POLICY).expect("it is tried")
}

/// Tries it with this answer until it ends; the time of each try in seconds.
fn to_end(mut sent: Sent, answer: Answer) -> (Sent, Vec<u64>) {
    let mut times = Vec::new();
    while let Some(next) = sent.0.next() {
        times.push(next.since(START).as_secs());
        sent = ended(begun(sent, next), next, answer);
        assert!(times.len() < 200, "{times:?}");
    }
    (sent, times)
}

const NOT_NOW: Answer = Answer::NotNow { pause: None };

#[test]
fn pauses_double_up_to_the_longest_and_patience_ends_after_a_day() {
    let ((delivery, standing), times) = to_end(queued(START), NOT_NOW);
    assert_eq!(times[..8], [0, 2, 6, 14, 30, 62, 126, 254]);
    let last = times[times.len() - 1];
    assert!((DAY..DAY + 3600).contains(&last), "{times:?}");
    assert_eq!(delivery.state, State::Failed { at: after(last) });
    assert_eq!((standing.failures as usize, standing.failing_since), (times.len(), Some(START)));
}

#[test]
fn what_comes_behind_is_not_the_target_s_first() {
    let ((_, standing), times) = to_end(queued(START), NOT_NOW);
    // The second day: hourly, as long as the event itself is not a day old.
    let next = after(times[times.len() - 1]);
    let young = ended(begun((Delivery::queued(next), standing), next), next, NOT_NOW);
    assert_eq!(young.0.state, State::Due { at: next.after(POLICY.longest_pause) });
    let old = ended(begun((Delivery::queued(START), standing), next), next, NOT_NOW);
    assert_eq!(old.0.state, State::Failed { at: next }, "it has had its day, behind the other");
    // Taken or refused, the target is there again.
    for answer in [Answer::Taken, Answer::Refused] {
        assert_eq!(ended(begun((Delivery::queued(next), standing), next), next, answer).1, Standing::default());
    }
}

#[test]
fn time_in_which_nobody_tried_is_no_time_that_the_target_had() {
    let late = after(2 * DAY);
    let sent = begun(queued(START), late);
    assert_eq!(ended(sent, late, Answer::Taken).0.state, State::Delivered { at: late });
    let sent = ended(sent, late, NOT_NOW);
    assert_eq!(sent.0.state, State::Due { at: late.after(Duration::from_secs(2)) });
    let (sent, times) = to_end(sent, NOT_NOW);
    assert!(sent.0.tries > POLICY.tries && times[times.len() - 1] >= 3 * DAY, "{times:?}");
    // A day that was short of tries, since the server was down in it, does not count either.
    let standing = Standing { failures: 3, failing_since: Some(START) };
    let sent = ended(begun((Delivery::queued(START), standing), late), late, NOT_NOW);
    assert!(matches!(sent.0.state, State::Due { .. }), "{sent:?}");
}

#[test]
fn three_refusals_end_it_whatever_else_it_met() {
    let mut sent = queued(START);
    for (now, answer) in [(0, NOT_NOW), (10, NOT_NOW), (20, Answer::Refused), (30, NOT_NOW), (40, Answer::Refused)] {
        sent = ended(begun(sent, after(now)), after(now), answer);
        assert!(!sent.0.has_ended(), "{sent:?}");
    }
    assert_eq!(sent.0.state, State::Due { at: after(44) });
    let sent = ended(begun(sent, after(44)), after(44), Answer::Refused);
    assert_eq!((sent.0.state, sent.0.tries), (State::Failed { at: after(44) }, 6));
}

#[test]
fn a_target_is_left_alone_for_as_long_as_it_asks_within_reason() {
    let tried = begun(queued(START), START);
    let paused = |seconds| {
        let pause = Some(Duration::from_secs(seconds));
        ended(tried, START, Answer::NotNow { pause }).0.next().expect("due").since(START).as_secs()
    };
    assert_eq!((paused(0), paused(90), paused(100_000)), (2, 90, 3600));
}

#[test]
fn a_try_that_was_lost_is_made_again_and_its_late_end_changes_nothing() {
    let (tried, standing) = begun(queued(START), START);
    assert!(tried.apply(Event::Begun, standing, after(59), &POLICY).is_err(), "it is another's until the lease ends");
    let (again, standing) = begun((tried, standing), after(60));
    let late = Event::Ended { number: 1, answer: Answer::Taken, spread: 0.0 };
    assert_eq!(again.apply(late, standing, after(61), &POLICY), Err(Refusal(again.state)));
    let (lost, _) = again.apply(Event::Lost, standing, after(61), &POLICY).expect("it was tried");
    assert_eq!((lost.state, lost.tries), (State::Due { at: after(61) }, 2));
}

#[test]
fn statuses_mean_what_they_say() {
    let check = |status, answer| assert_eq!(Answer::of_status(status, None), answer, "{status}");
    for status in [200, 202, 204] {
        check(status, Answer::Taken);
    }
    for status in [400, 410, 413, 422] {
        check(status, Answer::Refused);
    }
    for status in [100, 301, 401, 403, 404, 405, 408, 425, 429, 500, 503, 599] {
        check(status, NOT_NOW);
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let pause = proptest::option::of((0_u64..200_000).prop_map(Duration::from_secs));
    let answer = prop_oneof![
        Just(Answer::Taken),
        Just(Answer::Refused),
        Just(Answer::Gone),
        pause.prop_map(|pause| Answer::NotNow { pause })
    ];
    prop_oneof![
        3 => Just(Event::Begun),
        3 => (0_u32..6, answer, any::<f64>()).prop_map(|(number, answer, spread)| Event::Ended { number, answer, spread }),
        1 => Just(Event::Lost),
        1 => Just(Event::Dropped),
    ]
}

proptest! {
    #[test]
    fn a_life_is_legal(events in proptest::collection::vec((any_event(), 0_u64..5000), 0..60)) {
        let (mut delivery, mut standing) = queued(START);
        let mut now = START;
        for (event, pause) in events {
            now = now.after(Duration::from_secs(pause));
            let Ok((next, stands)) = delivery.apply(event, standing, now, &POLICY) else { continue };
            prop_assert!(!delivery.has_ended(), "what has ended never changes");
            prop_assert!(next.tries >= delivery.tries && next.queued == delivery.queued);
            prop_assert_eq!(next.tries > delivery.tries, event == Event::Begun);
            if let State::Due { at } = next.state {
                prop_assert!(at >= now && at.since(now) <= POLICY.longest_pause, "{:?} at {}", next, now);
            }
            if let Event::Ended { number, .. } = event {
                prop_assert_eq!(number, delivery.tries, "only the newest try ends");
            } else {
                prop_assert_eq!(stands, standing, "only answers tell of a target");
            }
            prop_assert_eq!(stands.failures == 0, stands.failing_since.is_none());
            (delivery, standing) = (next, stands);
        }
    }

    /// Whatever a target says, and however long the server was off in between.
    #[test]
    fn every_delivery_ends(
        answers in proptest::collection::vec((0_u8..3, any::<f64>(), 0_u64..100, prop_oneof![9 => Just(0_u64), 1 => 0..200_000_u64]), 1..200),
    ) {
        let (mut delivery, mut standing) = queued(START);
        let mut answers = answers.into_iter().cycle();
        let mut steps = 0;
        while let Some(next) = delivery.next() {
            let (kind, spread, took, off) = answers.next().expect("it goes round");
            let next = next.after(Duration::from_secs(off));
            (delivery, standing) = begun((delivery, standing), next);
            let answer = match kind { 0 => NOT_NOW, 1 => Answer::NotNow { pause: Some(Duration::from_secs(took * 60)) }, _ => Answer::Refused };
            let event = Event::Ended { number: delivery.tries, answer, spread };
            let now = next.after(Duration::from_secs(took));
            (delivery, standing) = delivery.apply(event, standing, now, &POLICY).expect("it is tried");
            steps += 1;
            prop_assert!(steps < 200, "it goes on for ever");
        }
        let has_failed = matches!(delivery.state, State::Failed { .. });
        prop_assert!(has_failed);
    }
}
